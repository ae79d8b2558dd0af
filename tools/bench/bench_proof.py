"""What the proof of a product costs, and what it says: `quantize` with --proof none and quick in turns.

    python tools/bench/bench_proof.py                                       # every model in every profile
    python tools/bench/bench_proof.py --models resnet20,light/shufflenet --profiles qnn --rounds 5 --json proof.json

Models: those of ../shared on their calibration images, and ONNX's nine test models (light/NAME) with random weights, on
generated images. A row is a model in a profile: the worst SQNR of its outputs against the float model, unoptimized and
as its target runs it; the seconds of the command without a proof, wall clock and user time of this process (the least
of all rounds); what the proof adds to both (least − least, and the median of the rounds' differences); and whether that
is under 10 % of the command or 3 s. Findings are listed below the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx

import onnxq
from bench_support import light, networks
from bench_support.references import REFERENCES
from bench_support.report import environment, markdown
from onnxq.data.source import input_specs, open_data
from onnxq.graph.model import load
from onnxq.measure.proof import Proof
from onnxq.profiles.schema import builtin_names

LIGHT = "light/"
MODELS = (*REFERENCES, *(LIGHT + name for name in light.NAMES))
SHARE, SECONDS = 0.1, 3.0
HEADS = ("model", "profile", "dB", "dB as run", "findings", "command s", "added s", "CPU s", "added CPU s", "")


@dataclass(frozen=True)
class Spent:
    """Seconds of one run: wall clock, and user time of this process."""

    wall: float
    user: float


@dataclass(frozen=True)
class Row:
    """One model in one profile. none, quick: of every round, in the same order. proof: ProofRecord as JSON types."""

    model: str
    profile: str
    none: tuple[Spent, ...]
    quick: tuple[Spent, ...]
    proof: dict[str, Any]

    def added(self, field: str) -> tuple[float, float]:
        """Seconds that the proof adds: least − least, and the median of the rounds' differences."""
        none, quick = ([getattr(s, field) for s in spent] for spent in (self.none, self.quick))
        return min(quick) - min(none), statistics.median(q - n for n, q in zip(none, quick, strict=True))

    @property
    def cheap(self) -> bool:
        """Whether the proof is within its bounds, by the least times: those that other work disturbed least."""
        added = self.added("wall")[0]
        return added < SECONDS or added < SHARE * min(s.wall for s in self.none)

    def decibels(self, optimized: bool) -> float | None:
        """The worst SQNR of the unoptimized run, or of the others; None where every output is equal, or none ran."""
        whole = [run for run in self.proof["runs"] if run.get("samples") is None]
        runs = whole[1:] if optimized else whole[:1]
        found = [o["sqnr_db"] for run in runs for o in run["outputs"] if o["sqnr_db"] is not None]
        return min(found, default=None)

    def cells(self) -> list[str]:
        """The row of the table."""
        kinds = [f["kind"] + (f" ({f['cause']})" if f["cause"] else "") for f in self.proof["findings"]]
        db = ["–" if d is None else f"{d:.1f}" for d in (self.decibels(False), self.decibels(True))]
        times = [
            text
            for field in ("wall", "user")
            for text in (
                f"{min(getattr(s, field) for s in self.none):.2f}",
                "{:+.2f} {:+.2f}".format(*self.added(field)),
            )
        ]
        return [self.model, self.profile, *db, ", ".join(kinds) or "none", *times, "" if self.cheap else "OVER"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--profiles", default=",".join(builtin_names()))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=32, help="to calibrate on")
    parser.add_argument("--json", type=Path, help="file for the figures; rows that it has already are kept")
    options = parser.parse_args()
    rows = kept(options.json)
    known = {(row.model, row.profile) for row in rows}
    for model in options.models.split(","):
        for profile in options.profiles.split(","):
            if (model, profile) in known:
                continue
            rows.append(measured(model, profile, options.rounds, options.threads, options.samples))
            print(*rows[-1].cells(), sep="  ", file=sys.stderr, flush=True)
            if options.json:
                table = {"environment": environment(), "rows": [asdict(row) for row in rows]}
                options.json.write_text(json.dumps(table, indent=1) + "\n")
    print(markdown("Proof", HEADS, [row.cells() for row in rows], environment()))
    print(*findings(rows), sep="\n")


def measured(model: str, profile: str, rounds: int, threads: int, samples: int) -> Row:
    """One row, of so many rounds."""
    proto, data = source(model, samples)
    spent: dict[str, list[Spent]] = {"none": [], "quick": []}
    proof: Proof | None = None
    for turn in range(rounds):
        for level in ("none", "quick") if turn % 2 == 0 else ("quick", "none"):
            wall, user = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
            made = onnxq.quantize(proto, data, profile=profile, threads=threads, proof=level)
            found = Spent(time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF).ru_utime - user)
            spent[level].append(found)
            proof = made.card.proof or proof
    assert proof is not None
    return Row(model, profile, tuple(spent["none"]), tuple(spent["quick"]), proof.to_dict())


@lru_cache(maxsize=1)
def source(model: str, samples: int) -> tuple[onnx.ModelProto, Any]:
    """A float model and an open source of so many samples."""
    if model.startswith(LIGHT):
        proto = light.alive(model.removeprefix(LIGHT))
        name = input_specs(load(proto).graph)[0].name
        arrays = networks.images(samples, size=light.shape_of(model.removeprefix(LIGHT))[-1])
        return proto, open_data([{name: array[None]} for array in arrays], input_specs(load(proto).graph))
    reference = REFERENCES[model]
    proto = onnx.load(str(reference.path))
    images = reference.data
    specs = input_specs(load(proto).graph)
    return proto, open_data(images.calibration, specs, preprocess=images.preprocess, limit=samples)


def kept(file: Path | None) -> list[Row]:
    """The rows of an earlier run."""
    if file is None or not file.exists():
        return []
    rows = json.loads(file.read_text())["rows"]
    return [Row(r["model"], r["profile"], _spent(r["none"]), _spent(r["quick"]), r["proof"]) for r in rows]


def _spent(tables: Sequence[dict[str, float]]) -> tuple[Spent, ...]:
    return tuple(Spent(**table) for table in tables)


def findings(rows: Sequence[Row]) -> Iterator[str]:
    """One line per finding."""
    for row in rows:
        for found in row.proof["findings"]:
            yield f"{row.model}, {row.profile}: {found['text']}"


if __name__ == "__main__":
    main()
