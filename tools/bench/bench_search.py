"""The mixed-precision search: how long it takes, and how accurate its results are on the reference models of ../shared.

    python tools/bench/bench_search.py time  # MixQuant and the ILP, ResNet-50 and -152 sizes
    python tools/bench/bench_search.py ilp --results build/search.json      # sensitivities, random, inverted, MixQuant
    python tools/bench/bench_search.py mixquant --results build/search.json # over QEM, compared with uniform widths
    python tools/bench/bench_search.py latency --results build/search.json  # predicted and measured
    python tools/bench/bench_search.py report --results build/search.json   # the tables of all stored results

Each result is saved in the JSON file as soon as it is known, so an interrupted run can be continued; sensitivities and
calibrations are stored next to it. Logit SQNR, agreement and top-1 are those of the validation sets, in profile
onnxruntime-cpu.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxq
from bench_support import networks
from bench_support.references import REFERENCES, require_shared
from bench_support.search_accuracy import PROFILE, QEMS, Results, report, run_ilp, run_mixquant
from onnxq.cost.prepared import prepare
from onnxq.execution import benchmark
from onnxq.search.error_table import QUANTIZERS, error_table
from onnxq.search.latency import measure_latency
from onnxq.search.least_sensitivity import search_ilp
from onnxq.search.methods.mixquant import MixQuant, choose
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from onnxq.search.space import Space, make_space

# Seconds of the paper's search (Kloberdanz & Le 2023), by size of the network: (one QEM, ten).
PAPER = {"resnet50": (0.2, 2.0), "resnet152": (0.5, 5.2)}
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet152": (3, 8, 36, 3), "501 layers": (3, 8, 151, 3)}


def resnet_weights(blocks: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """The layers of a bottleneck ResNet side by side, not connected: only weights of the real shapes."""
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    given = 64
    for stage, count in enumerate(blocks):
        inside = 64 << stage
        for index in range(count):
            shapes += [(inside, given, 1, 1), (inside, inside, 3, 3), (4 * inside, inside, 1, 1)]
            shapes += [(4 * inside, given, 1, 1)] if index == 0 else []
            given = 4 * inside
    nodes, constants, inputs, outputs = [], [], [], []
    for i, shape in enumerate(shapes):
        values = rng.standard_normal(shape, np.float32)
        constants.append(numpy_helper.from_array(values, f"w{i}"))
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, shape[1], shape[2], shape[3]]))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"y{i}"], f"conv{i}"))
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [1, shape[0], 1, 1]))
    constants.append(numpy_helper.from_array(rng.standard_normal((given, 1000), np.float32), "head"))
    inputs.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, given]))
    nodes.append(helper.make_node("MatMul", ["h", "head"], ["logits"], "fc"))
    outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000]))
    graph = helper.make_graph(nodes, "weights", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_time(results: Results, folder: Path, args: argparse.Namespace) -> None:
    """Shortest and median time of several searches: MixQuant with one and ten QEMs, the ILP with one and two limits."""
    for name, blocks in BLOCKS.items():
        prepared = prepare(resnet_weights(blocks), PROFILE)
        parameters = sum(math.prod(layer.weight.shape) for layer in prepared.layers)
        print(f"{name}: {len(prepared.layers)} layers, {parameters / 1e6:.1f} M weights")
        for quantizer in QUANTIZERS:
            for qems, paper in zip(((2.0,), QEMS), PAPER.get(name, ("", "")), strict=True):
                took, busy = [], []
                for _ in range(args.repeats):
                    started, cpu = time.perf_counter(), time.process_time()
                    table = error_table(prepared, quantizer)
                    for qem in qems:
                        choose(table, qem)
                    took.append(time.perf_counter() - started)
                    busy.append(time.process_time() - cpu)
                limit = f"paper {paper} s" if quantizer == "affine" and paper else ""
                print(
                    f"  MixQuant, {quantizer:12}, {len(qems):2} QEM: shortest {min(took):.3f} s, median "
                    f"{statistics.median(took):.3f} s, CPU time at least {min(busy):.3f} s  {limit}",
                    flush=True,
                )
        for bits in ((4, 8), MixQuant.widths):
            program_time(make_space(prepared, bits=bits), args.repeats)
    del results, folder


def program_time(space: Space, repeats: int) -> None:
    """Time of the ILP with random sensitivities, which fall to a quarter with every bit."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(sigma=2, size=len(space.costs.layers))
    model = space.prepared.model
    known = Sensitivity(
        model.sha256,
        model.name,
        "random",
        tuple(
            LayerSensitivity(c.node, "weights", {b: float(v) * 4.0**-b for b in space.weight_bits})
            for c, v in zip(space.costs.layers, values, strict=True)
        ),
    )
    for limits in ({"size": "60%"}, {"size": "70%", "bops": "70%"}):
        took = []
        for _ in range(repeats):
            started = time.perf_counter()
            search_ilp(space, known, limits)
            took.append(time.perf_counter() - started)
        least, median = min(took), statistics.median(took)
        print(f"  ILP, {len(space.weight_bits)} widths, limits {limits}: shortest {least:.3f} s, median {median:.3f} s")


def run_latency(results: Results, folder: Path, args: argparse.Namespace) -> None:
    """A latency-constrained search, and the measured latency of its result."""
    for name in args.models.split(","):
        source = networks.build(name)
        lat = measure_latency(source, (4, 8), threads=args.threads, cache=folder / "latency")
        space = make_space(source, profile="onnxq", bits=(4, 8), latency=lat)
        values = {c.node: float(c.parameters) for c in space.costs.layers}
        model = space.prepared.model
        known = Sensitivity(
            model.sha256,
            name,
            "parameters",
            tuple(LayerSensitivity(n, "weights", {4: v, 8: 0.0}) for n, v in values.items()),
        )
        least = sum(min(e.seconds.values()) for e in lat.layers) + lat.overhead
        limit = (least + lat.whole[8, 8]) / 2
        found = search_ilp(space, known, {"latency": limit})
        proto = onnx.load_from_string(source.SerializeToString())
        made = onnxq.quantize(
            proto,
            random_data=1,
            profile="onnxq",
            calibration="max",
            weight_range="max",
            overrides=dict(found.assignment),
            first_last_bits=None,
        )
        timing = benchmark.bench(made.model, threads=args.threads, seconds=3).timings[0]
        predicted = found.predicted["latency"]
        row = {
            "threads": args.threads,
            "int8_ms": 1e3 * lat.whole[8, 8],
            "int4_ms": 1e3 * lat.whole[4, 8],
            "overhead_ms": 1e3 * lat.overhead,
            "at_4_bits": sum(c.weight_bits == 4 for c in found.layers),
            "layers": len(found.layers),
            "predicted_ms": 1e3 * predicted,
            "measured_ms": timing.median_ms,
            "off_percent": 100 * (1e3 * predicted / timing.median_ms - 1),
        }
        results.table.pop(f"{name} latency, {args.threads} threads", None)
        results.once(f"{name} latency, {args.threads} threads", row.copy)


RUNS = {"time": run_time, "ilp": run_ilp, "mixquant": run_mixquant, "latency": run_latency, "report": report}


def main() -> None:
    """One of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--models", default=",".join(REFERENCES))
    parser.add_argument("--results", type=Path, default=Path("build/search.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if args.what in ("ilp", "mixquant"):
        require_shared()
    RUNS[args.what](Results(args.results), args.results.parent / "search", args)


if __name__ == "__main__":
    main()
