"""Time and memory of calibration: onnxq and the calibrators of onnxruntime.quantization, on the same images.

    python tools/bench/bench_calibration.py [--model mobilenetv2] [--images 100] [--repeats 3] [--threads 2] [--json F]
    python tools/bench/bench_calibration.py --memory          # onnxq at 50, 100 and 200 images

Each measurement runs in its own process, which gives it a peak memory of its own; the candidates take turns. Time is
counted from the model's path to the ranges of all tensors, with reading the images and without imports. onnxruntime's
calibrators are created as quantize_static creates them and read the same preprocessed images; each gives the ranges of
one method. onnxq gives those of every method from one pass: "collect" is that pass, the methods follow. All run on the
same CPUs. Models and images are those of ../shared or $ONNXQ_SHARED.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_support.references import REFERENCES, require_shared

# Nothing heavy is imported at the top: a process starts with the peak memory of its parent.

OURS = {"onnxq": "", "onnxq, for a profile": "onnxruntime-cpu"}
THEIRS = {"onnxruntime minmax": "MinMax", "onnxruntime entropy": "Entropy", "onnxruntime percentile": "Percentile"}
MEMORY_IMAGES = (50, 100, 200)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=REFERENCES, default="mobilenetv2")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one measurement, in a process of its own
    args = parser.parse_args()
    require_shared()
    if args.one:
        print(json.dumps(measure(args.one, args.model, args.images, args.threads)))
        return
    if args.memory:
        runs = [("onnxq", images) for images in MEMORY_IMAGES]
    else:
        runs = [(name, args.images) for name in (*THEIRS, *OURS)]
    results: dict[tuple[str, int], list[dict[str, Any]]] = {run: [] for run in runs}
    for _ in range(args.repeats):
        for run in runs:
            results[run].append(in_a_process(args, *run))
    rows = [summary(name, images, found) for (name, images), found in results.items()]
    report(args, rows)
    if args.json:
        args.json.write_text(json.dumps({"arguments": {**vars(args), "json": None}, "rows": rows}, indent=1) + "\n")


def in_a_process(args: argparse.Namespace, name: str, images: int) -> dict[str, Any]:
    """One measurement in a new process."""
    options = ("--one", name, "--model", args.model, "--images", images, "--threads", args.threads)
    command = [sys.executable, __file__, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(name: str, images: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the repeats, and every repeat."""
    row = {"name": name, "images": images, "tensors": found[0]["tensors"], "runs": found}
    row |= {key: statistics.median(run[key] for run in found) for key in ("seconds", "cpu_seconds", "peak_mib")}
    steps = found[0].get("steps", {})
    return row | {"steps": {step: statistics.median(run["steps"][step] for run in found) for step in steps}}


def report(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print the table; times and peaks also as multiples of onnxq's."""
    ours = next(row for row in rows if row["name"] == "onnxq")
    print(f"{args.model}, {args.threads} threads, median (lowest–highest) of {args.repeats}")
    print(f"{'':24} {'images':>6} {'tensors':>7} {'seconds':>19} {'':>6} {'CPU s':>6} {'peak MiB':>9}")
    for row in rows:
        times = [run["seconds"] for run in row["runs"]]
        seconds = f"{row['seconds']:.1f} ({min(times):.1f}–{max(times):.1f})"
        print(
            f"{row['name']:24} {row['images']:>6} {row['tensors']:>7} {seconds:>19}"
            f" {row['seconds'] / ours['seconds']:>5.1f}× {row['cpu_seconds']:>6.1f}"
            f" {row['peak_mib']:>9.0f} {row['peak_mib'] / ours['peak_mib']:>5.1f}×"
        )
    for row in rows:
        if row["steps"]:
            print(f"{row['name']}: " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in row["steps"].items()))


def measure(name: str, model: str, images: int, threads: int) -> dict[str, Any]:
    """Calibrate once in this process."""
    if hasattr(os, "sched_setaffinity"):  # onnxruntime's thread pools follow it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    reference = REFERENCES[model]
    arguments = (reference.path, reference.data.calibration, reference.data.preprocess, images)
    run = ours(*arguments, OURS[name], threads) if name in OURS else theirs(*arguments, THEIRS[name])
    next(run)  # imports
    cpu, started = time.process_time(), time.perf_counter()
    result = next(run)
    result |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return result | {"peak_mib": peak_memory() / 2**20}


def ours(path: Path, data: Path, preprocess: str, images: int, profile: str, threads: int) -> Iterator[dict[str, Any]]:
    """onnxq: one pass, then the ranges of every method. Yields once before the work, then the result."""
    import onnxruntime  # noqa: F401  onnxq imports it on first use

    from onnxq import pipeline, recipes
    from onnxq.calibrate.ranges import available, choose_range
    from onnxq.calibrate.runner import collect, observable
    from onnxq.context import PassContext
    from onnxq.data.options import RunOptions
    from onnxq.data.source import input_specs, open_data
    from onnxq.graph.element_types import fill_types
    from onnxq.graph.model import load
    from onnxq.numeric.formats import QuantFormat
    from onnxq.placement.planner import plan
    from onnxq.placement.settings import QuantSettings
    from onnxq.profiles.schema import load_profile

    pipeline.available()
    yield {}
    steps: dict[str, float] = {}

    def step(name: str) -> None:
        steps[name] = time.perf_counter() - started - sum(steps.values())

    started = time.perf_counter()
    model = load(path)
    pipeline.run(model, recipes.prepare_pipeline(13), PassContext(model))
    step("prepare the model")
    fill_types(model.graph)
    tensors = plan(model.graph, load_profile(profile), QuantSettings()).observed() if profile else observable(model)
    source = open_data(data, input_specs(model.graph), preprocess=preprocess, limit=images)
    found = collect(model, tensors, source, RunOptions(threads))
    step("collect")
    fmt = QuantFormat(bits=8, signed=False, symmetric=False)
    for method in available():
        for tensor in found.values():
            choose_range(tensor, method, fmt)
        step(method)
    yield {"tensors": len(found), "steps": steps}


def theirs(path: Path, data: Path, preprocess: str, images: int, method: str) -> Iterator[dict[str, Any]]:
    """A calibrator of onnxruntime.quantization. Yields once before the work, then the result."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    from bench_support.feed_reader import FeedReader
    from onnxq.data.source import batches, input_specs, open_data
    from onnxq.graph.model import load

    specs = input_specs(load(path).graph)

    yield {}
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            str(path),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=CalibrationMethod[method],
        )
        source = open_data(data, specs, preprocess=preprocess, limit=images)
        calibrator.collect_data(FeedReader(batch.feeds for batch in batches(source, specs, 1)))
        ranges = calibrator.compute_data()
    yield {"tensors": len(list(ranges.keys()))}


def peak_memory() -> int:
    """Peak resident memory in bytes. On Linux ru_maxrss includes the parent's peak, so VmHWM is preferred."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
