"""Whole networks: onnxq's integer-only models, onnxruntime (float32, and int8 from Q/DQ) and OpenVINO int8.

    python tools/bench/bench_models.py   # every model, batches 1 and 8, threads 1 and 2
    python tools/bench/bench_models.py --models resnet50 --batch 1 --isa best,avx2,portable --json models.json

The four take turns in one process on the same input (onnxq.execution.benchmark); figures are medians, and ratios of
runs next to each other in time. OpenVINO runs the same Q/DQ file as onnxruntime, with performance hint LATENCY, one
stream and the number of threads. Models are quantized once, on a few images of ../shared or generated ones (speed does
not depend on them), and kept in --workdir until onnxq's sources change. SQNR of the outputs against the float model, on
one batch, shows that the timed models compute what they should.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxq
from bench_support import networks
from bench_support.report import BEST, each_tier, environment, markdown, show, without
from onnxq.data.source import DataSource, batches, input_specs, open_data
from onnxq.numeric.metrics import sqnr_db

HEADS = (
    "model",
    "batch",
    "threads",
    "tier",
    "onnxq ms",
    "onnxruntime int8",
    "OpenVINO int8",
    "onnxruntime float",
    "SQNR dB",
)


@dataclass(frozen=True)
class Files:
    """The versions of a network. qdq: of profile onnxruntime-cpu. ours: integer-only, of profile onnxq."""

    floating: Path
    qdq: Path
    ours: Path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(networks.NAMES))
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--isa", default="", help=f"tiers of kernels, each in a process of its own, e.g. {BEST},portable"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="per model and setting [default: %(default)s]")
    parser.add_argument("--images", type=int, default=16, help="to calibrate on [default: %(default)s]")
    parser.add_argument("--workdir", type=Path, default=Path("build/bench"))
    parser.add_argument("--per-layer", action="store_true", help="also the time of each of onnxq's layers, in the JSON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    if args.isa:
        for name in args.models.split(","):
            prepare(name, args.workdir, args.images)
        options = without(sys.argv[1:], "--isa", "--json", "--markdown")
        results = list(each_tier(__file__, args.isa.split(","), options))
    else:
        results = [{"environment": environment(), "rows": run(args)}]
        report(results[0])
    if args.json:
        args.json.write_text(json.dumps(results if args.isa else results[0], indent=1) + "\n")
    if args.markdown:
        tables = [markdown("Models", HEADS, cells(r), r["environment"]) for r in results]
        args.markdown.write_text("\n".join(tables))


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every model in every setting; a row each."""
    rows = []
    for name in args.models.split(","):
        files = prepare(name, args.workdir, args.images)
        quality = {key: sqnr(files, getattr(files, key), name) for key in ("qdq", "ours")}
        for batch in map(int, args.batch.split(",")):
            for threads in map(int, args.threads.split(",")):
                print(f"{name}, batch {batch}, {threads} thread(s)", file=sys.stderr)
                rows.append({"name": name, "sqnr_db": quality, "operators": operators(files.ours)})
                rows[-1] |= bench(files, batch, threads, args.seconds, args.per_layer)
    return rows


def bench(files: Files, batch: int, threads: int, seconds: float, per_layer: bool = False) -> dict[str, Any]:
    """One model in one setting: onnxq and its peers."""
    against: list[str | Path] = [files.qdq, f"openvino:{files.qdq}", files.floating]
    found = onnxq.bench(
        files.ours, against, batch_size=batch, threads=threads, seconds=seconds, per_layer=per_layer
    ).to_dict()
    names = ("ours", "int8", "openvino", "float")
    times = dict(zip(names, found["timings"], strict=True))
    return {"batch": batch, "threads": threads, "timings": times, "layers": found["layers"]}


def prepare(name: str, workdir: Path, images: int) -> Files:
    """The versions of a model, from the folder if they are current there, else made again."""
    files = Files(*(workdir / f"{name}{suffix}.onnx" for suffix in ("", ".qdq", ".int")))
    key, stored = f"{sources()} {images}", workdir / f"{name}.key"
    if (
        stored.exists()
        and stored.read_text() == key
        and all(p.exists() for p in (files.floating, files.qdq, files.ours))
    ):
        return files
    print(f"{name}: quantizing", file=sys.stderr)
    stored.unlink(missing_ok=True)
    onnx.save(networks.build(name), str(files.floating))
    onnxq.quantize(files.floating, samples(files, name, images), profile="onnxruntime-cpu").save(files.qdq)
    onnxq.quantize(files.floating, samples(files, name, images), profile="onnxq").save(files.ours)
    stored.write_text(key)
    return files


def samples(files: Files, name: str, count: int) -> DataSource:
    """Images to calibrate on: those of ../shared, or generated ones."""
    specs = input_specs(onnxq.load(files.floating).graph)
    data = networks.DATA[name]
    if data.calibration.exists():
        return open_data(data.calibration, specs, preprocess=data.preprocess, limit=count)
    side = specs[0].shape[-1] if specs[0].shape else 224
    assert isinstance(side, int)
    return open_data({specs[0].name: networks.images(count, side)}, specs)


def sqnr(files: Files, path: Path, name: str) -> float:
    """Signal to noise of the outputs against the float model in dB, on one batch of 8."""
    source = samples(files, name, 8)
    batch = next(batches(source, source.inputs, 8))
    expected, found = (onnxq.session(p).run(None, batch.feeds)[0] for p in (files.floating, path))
    return float(sqnr_db(np.asarray(expected), np.asarray(found)))


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
    """Print the table."""
    found = result["environment"]
    show(f"{found['cpu']}, kernels: {found['isa']}; peers: ms (relative to onnxq)", HEADS, cells(result))


def cells(result: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, row by row."""
    out = []
    for row in result["rows"]:
        times = row["timings"]
        peers = [f"{times[k]['median_ms']:.2f} ({times[k]['ratio']:.2f}×)" for k in ("int8", "openvino", "float")]
        setting = [row["name"], str(row["batch"]), str(row["threads"]), str(result["environment"]["isa"])]
        quality = f"{row['sqnr_db']['ours']:.1f} (int8 {row['sqnr_db']['qdq']:.1f})"
        out.append([*setting, f"{times['ours']['median_ms']:.2f}", *peers, quality])
    return out


if __name__ == "__main__":
    main()
