"""Whole networks: onnxq's integer-only models, OpenVINO int8, and onnxruntime int8 and float32.

    python tools/bench/bench_models.py            # every model, batches 1 and 8, threads 1 and 2
    python tools/bench/bench_models.py --quick    # the same in 3 minutes, float32 at batch 1 only
    python tools/bench/bench_models.py --models resnet50 --batch 1 --isa best,avx2 --json models.json
    python tools/bench/bench_models.py --quick --peers openvino --against-library OTHER/libonnxq_kernels.so

Each runtime has a process of its own, pinned to one core (times are then of the CPU) or to one per thread (wall clock).
They take turns on the same input, and each run is between two probes of the cores (bench_support.phases): figures are
of the runs that no neighbour disturbed, ratios are of their medians, and the disturbed runs are in a table of their
own. OpenVINO runs the same Q/DQ file as onnxruntime (of the encoder, that of its own profile), with hint LATENCY, one
stream and the number of threads. With --isa, OpenVINO is held to the tier's instruction set (ONEDNN_MAX_CPU_ISA);
onnxruntime has no such switch. Models are quantized once, on a few images of ../shared or generated ones (speed does
not depend on them), and kept in --workdir until onnxq's sources change. SQNR of the outputs against the float model, on
one batch, shows that the timed models compute what they should.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxq
from bench_support import networks
from bench_support.encoder import encoder, sentences
from bench_support.phases import Phases, Sample, fastest_probe, phases
from bench_support.report import BEST, environment, markdown, show
from bench_support.sampler import Probe, Sampler
from onnxq.data.source import DataSource, batches, input_specs, open_data
from onnxq.execution import library
from onnxq.execution.benchmark import settle
from onnxq.execution.feeds import Feeds, bench_feeds
from onnxq.numeric.metrics import sqnr_db

ENCODER = "encoder"  # of BERT-base's shape, on sentences of 128 words
LAYERS = 12
NAMES = (*networks.NAMES, ENCODER)
OURS, OTHER_BUILD = "onnxq", "onnxq, other build"
# Tier → what OpenVINO's kernels may use at most.
ONEDNN_ISA = {"avx512vnni": "AVX512_CORE_VNNI", "avxvnni": "AVX2_VNNI", "avx2": "AVX2", "portable": "SSE41"}
# Per runner and setting. A turn is long beside the untimed run that starts it, and there are several.
SECONDS, TURNS = 3.0, 10
QUICK_SECONDS, QUICK_TURNS = 0.3, 3


@dataclass(frozen=True)
class Files:
    """The versions of a network. qdq: of profile onnxruntime-cpu. ours: integer-only, of profile onnxq.

    openvino: the Q/DQ model that OpenVINO runs.
    """

    floating: Path
    qdq: Path
    ours: Path
    openvino: Path


@dataclass(frozen=True)
class Runner:
    """A runtime, which of the files it runs, and the environment of its process."""

    name: str
    file: str
    openvino: bool = False
    variables: Mapping[str, str | None] = field(default_factory=dict)


PEERS = {
    "openvino": Runner("OpenVINO int8", "openvino", openvino=True),
    "onnxruntime": Runner("onnxruntime int8", "qdq"),
    "float": Runner("onnxruntime float", "floating"),
    "openvino-float": Runner("OpenVINO float", "floating", openvino=True),
}


def main() -> None:
    """Measure and print tables."""
    args = parser().parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    if args.quick:
        args.seconds, args.turns = QUICK_SECONDS, QUICK_TURNS
    results: list[dict[str, Any]] = []
    for tier in args.isa.split(","):
        with chosen(tier):
            results.append({"environment": environment(), "rows": run(args)})
            report(results[-1])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.markdown:
        tables = [markdown("Models", heads(r), cells(r), r["environment"]) for r in results]
        args.markdown.write_text("\n".join(tables))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--models", default=",".join(NAMES))
    found.add_argument("--batch", default="1,8")
    found.add_argument("--threads", default="1,2")
    found.add_argument("--isa", default=BEST, help="tiers of kernels, e.g. best,avx2 [default: %(default)s]")
    found.add_argument("--peers", default="openvino,onnxruntime,float", help=f"of {', '.join(PEERS)}, or none")
    found.add_argument("--library", type=Path, help="build of the kernels to time instead of the installed one")
    found.add_argument("--against-library", type=Path, help="another build of the kernels, as a further peer")
    found.add_argument("--quick", action="store_true", help="all of it in 3 minutes: fewer and shorter turns")
    found.add_argument("--seconds", type=float, default=SECONDS, help="per runtime and setting [default: %(default)s]")
    found.add_argument("--turns", type=int, default=TURNS, help="of which each has as many [default: %(default)s]")
    found.add_argument("--images", type=int, default=16, help="to calibrate on [default: %(default)s]")
    found.add_argument("--workdir", type=Path, default=Path("build/bench"))
    found.add_argument("--per-layer", action="store_true", help="also the time of each of onnxq's layers, in the JSON")
    found.add_argument("--json", type=Path)
    found.add_argument("--markdown", type=Path)
    return found


@contextlib.contextmanager
def chosen(tier: str) -> Iterator[None]:
    """ONNXQ_ISA for this process and those that it starts."""
    before = os.environ.pop(library.ISA_VARIABLE, None)
    os.environ.update({} if tier == BEST else {library.ISA_VARIABLE: tier})
    try:
        yield
    finally:
        os.environ.pop(library.ISA_VARIABLE, None)
        os.environ.update({} if before is None else {library.ISA_VARIABLE: before})


def runners(args: argparse.Namespace) -> list[Runner]:
    """Ours first."""
    builds = [Runner(OURS, "ours", variables={library.LIBRARY_VARIABLE: str(args.library)} if args.library else {})]
    if args.against_library:
        builds.append(Runner(OTHER_BUILD, "ours", variables={library.LIBRARY_VARIABLE: str(args.against_library)}))
    limit = {"ONEDNN_MAX_CPU_ISA": ONEDNN_ISA.get(os.environ.get(library.ISA_VARIABLE, ""))}
    peers = [PEERS[name] for name in args.peers.split(",") if name != "none"]
    return [*builds, *(Runner(p.name, p.file, p.openvino, limit if p.openvino else {}) for p in peers)]


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every model in every setting; a row each."""
    names, prepared = args.models.split(","), {}
    for name in names:
        prepared[name] = prepare(name, args.workdir, args.images)
    probe = Probe.of(library.library_path(), library.peak_macs())
    settings: list[tuple[dict[str, Any], dict[str, list[Sample]]]] = []
    for threads in map(int, args.threads.split(",")):
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        with contextlib.ExitStack() as stack:
            samplers = [(r, stack.enter_context(Sampler(cores, probe, r.variables))) for r in runners(args)]
            for name in names:
                for batch in map(int, args.batch.split(",")):
                    print(f"{name}, batch {batch}, {threads} thread(s)", file=sys.stderr)
                    row = {"name": name, "batch": batch, "threads": threads}
                    settings.append((row, measure(args, prepared[name], name, batch, threads, samplers, row)))
    fastest = fastest_probe(s for _, found in settings for samples in found.values() for s in samples)
    for row, found in settings:
        row["timings"] = {runner: asdict(phases(samples, fastest)) for runner, samples in found.items()}
        if not args.quick:
            files = prepared[row["name"]]
            row["sqnr_db"] = {key: sqnr(files, getattr(files, key), row["name"]) for key in ("qdq", "ours")}
    return [row for row, _ in settings]


def measure(
    args: argparse.Namespace,
    files: Files,
    name: str,
    batch: int,
    threads: int,
    samplers: Sequence[tuple[Runner, Sampler]],
    row: dict[str, Any],
) -> dict[str, list[Sample]]:
    """One model in one setting: the samples of each runner, which take turns. row: gets the versions and layers."""
    feeds = args.workdir / "feeds.npz"
    np.savez(feeds, **feeds_of(files, name, batch))  # type: ignore[arg-type]
    taking = [(r, s) for r, s in samplers if not (args.quick and batch > 1 and r.file == "floating")]
    row["versions"] = {r.name: s.open(getattr(files, r.file), feeds, threads, r.openvino) for r, s in taking}
    found: dict[str, list[Sample]] = {runner.name: [] for runner, _ in taking}
    for turn in range(args.turns):
        for runner, sampler in taking if turn % 2 == 0 else reversed(taking):
            time.sleep(settle(threads))
            found[runner.name] += sampler.turn(args.seconds / args.turns)
    if args.per_layer:
        row["layers"] = taking[0][1].layers(files.ours, feeds, threads, args.seconds)
    return found


def feeds_of(files: Files, name: str, batch: int) -> Feeds:
    """Inputs of this batch size: random ones, of the encoder sentences."""
    if name == ENCODER:
        return _joined(list(sentences(batch)))
    return bench_feeds(onnxq.load(files.ours), None, None, batch, None, 0)[0]


def _joined(feeds: Sequence[Feeds]) -> dict[str, Any]:
    return {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}


def prepare(name: str, workdir: Path, images: int) -> Files:
    """The versions of a model, from the folder if they are current there, else made again."""
    suffixes = ("", ".qdq", ".int", ".openvino" if name == ENCODER else ".qdq")
    files = Files(*(workdir / f"{name}{suffix}.onnx" for suffix in suffixes))
    key, stored = f"{sources()} {images}", workdir / f"{name}.key"
    if stored.exists() and stored.read_text() == key and all(p.exists() for p in asdict(files).values()):
        return files
    print(f"{name}: quantizing", file=sys.stderr)
    stored.unlink(missing_ok=True)
    onnx.save(encoder(LAYERS) if name == ENCODER else networks.build(name), str(files.floating))
    versions = {files.openvino: "openvino", files.qdq: "onnxruntime-cpu", files.ours: "onnxq"}
    for path, profile in versions.items():  # where two paths are equal the later profile counts
        onnxq.quantize(files.floating, samples(files, name, images), profile=profile).save(path)
    stored.write_text(key)
    return files


def samples(files: Files, name: str, count: int) -> DataSource | list[dict[str, Any]]:
    """What to calibrate on: images of ../shared or generated ones, sentences for the encoder."""
    if name == ENCODER:
        return list(sentences(count))
    specs = input_specs(onnxq.load(files.floating).graph)
    data = networks.DATA[name]
    if data.calibration.exists():
        return open_data(data.calibration, specs, preprocess=data.preprocess, limit=count)
    side = specs[0].shape[-1] if specs[0].shape else 224
    assert isinstance(side, int)
    return open_data({specs[0].name: networks.images(count, side)}, specs)


def sqnr(files: Files, path: Path, name: str) -> float:
    """Signal to noise of the outputs against the float model in dB, on one batch of 8."""
    found = samples(files, name, 8)
    feeds = _joined(found) if isinstance(found, list) else next(batches(found, found.inputs, 8)).feeds
    counted = feeds["mask"] == 1 if name == ENCODER else slice(None)  # padding is not
    expected, got = (np.asarray(onnxq.session(p).run(None, feeds)[0])[counted] for p in (files.floating, path))
    return float(sqnr_db(expected, got))


def operators(path: Path) -> dict[str, int]:
    """How often each operator occurs, by its name with the domain."""
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return dict(Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in nodes).most_common())


def sources() -> str:
    """A digest of the sources of onnxq, its passes and these tools: the stored models are valid for one digest."""
    folders = {Path(path) for path in onnxq.__path__} | {Path(__file__).parent}
    files = sorted(f for folder in folders for f in folder.rglob("*") if f.suffix in (".py", ".toml"))
    passes = sorted((Path(__file__).parents[2] / "passes").glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in [*files, *passes])).hexdigest()[:16]


def report(result: dict[str, Any]) -> None:
    """Print the table, and that of the disturbed runs."""
    found = result["environment"]
    title = "ms of the fast runs, minimum and median, and the median relative to onnxq's"
    show(f"{found['cpu']}, kernels: {found['isa']}; {title}", heads(result), cells(result))
    if slow := slow_cells(result):
        show("slow runs, beside a busy neighbour: median ms (how many)", heads(result)[:-1], slow)


def heads(result: dict[str, Any]) -> list[str]:
    """The heads of both tables; that of the slow runs lacks the last."""
    return ["model", "batch", "threads", "tier", *_runners(result), "slow runs", "SQNR dB"]


def cells(result: dict[str, Any]) -> list[list[str]]:
    """The table of the fast runs, row by row."""
    out = []
    for row in result["rows"]:
        times = {name: Phases(**found) for name, found in row["timings"].items()}
        ours = times[OURS].median_ms
        fast = [_fast(times.get(name), ours if name != OURS else None) for name in _runners(result)]
        slow, all_runs = sum(t.slow for t in times.values()), sum(t.slow + t.fast for t in times.values())
        quality = row.get("sqnr_db")
        shown = f"{quality['ours']:.1f} (int8 {quality['qdq']:.1f})" if quality else "–"
        out.append([*_setting(row, result), *fast, f"{slow} of {all_runs}", shown])
    return out


def slow_cells(result: dict[str, Any]) -> list[list[str]]:
    """The table of the slow runs: a row for every setting that has any."""
    out = []
    for row in result["rows"]:
        times = {name: Phases(**found) for name, found in row["timings"].items()}
        slow = [_slow(times.get(name)) for name in _runners(result)]
        if any(t.slow for t in times.values()):
            out.append([*_setting(row, result), *slow, str(sum(t.slow for t in times.values()))])
    return out


def _setting(row: dict[str, Any], result: dict[str, Any]) -> list[str]:
    return [row["name"], str(row["batch"]), str(row["threads"]), str(result["environment"]["isa"])]


def _runners(result: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for row in result["rows"] for name in row["timings"]))


def _fast(times: Phases | None, ours: float | None) -> str:
    if times is None or times.min_ms is None or times.median_ms is None:
        return "–"
    ratio = f" {times.median_ms / ours:.2f}×" if ours else ""
    return f"{times.min_ms:.2f} {times.median_ms:.2f}{ratio}"


def _slow(times: Phases | None) -> str:
    return f"{times.slow_median_ms:.2f} ({times.slow})" if times and times.slow_median_ms else "–"


if __name__ == "__main__":
    main()
