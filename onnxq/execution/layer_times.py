"""Times per node from onnxruntime's own profile, with the work and the memory traffic of each node.

The profile names the nodes of the optimized graph and the shapes of their operands, but not of weights that were packed
when the session was created. So the optimized graph is written as well; its nodes are in execution order.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto

from onnxq.errors import OnnxqError
from onnxq.execution import library, runtime
from onnxq.execution.conv_plan import conv_plan
from onnxq.execution.inner_tensors import to_value
from onnxq.execution.save import openable
from onnxq.graph.model import Libraries, Model
from onnxq.graph.protos import ELEMENT_BITS
from onnxq.operators import DOMAIN, OPERATORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORST = 3
EVENTS_MAX = 20_000  # node executions to record: about 1 KB each in the profile
RUNS_MIN, RUNS_MAX = 5, 200
EVENT = "_kernel_time"
CONTROL_FLOW = ("If", "Loop", "Scan")

# Operator → index of its weight, including onnxruntime's fused operators and those of com.onnxq.
CONVOLUTIONS = {
    "Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3,
    **{name: 1 for name, spec in OPERATORS.items() if spec.products == "filter"},
}  # fmt: skip
PRODUCTS = (
    "Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "QLinearMatMul",
    *(name for name, spec in OPERATORS.items() if spec.products == "row"),
)  # fmt: skip
Source = str | Path | bytes | onnx.ModelProto | Model


@dataclass(frozen=True)
class LayerTime:
    """One node of the executed graph.

    ms: mean of the middle half of the runs, per run of the whole batch. share: of the time of all nodes, 0 to 1. macs:
    multiply-accumulates, None if unknown, 0 for operators without matrix products. bytes_moved: inputs, weights and
    outputs, each once. lost_ms: time beyond what its multiply-accumulates would need at the ceiling. plan: how the
    kernels of com.onnxq compute it, in words; empty for other operators.
    """

    node: str
    op: str
    ms: float
    share: float
    macs: int | None
    bytes_moved: int
    lost_ms: float
    plan: str = ""

    @property
    def gops(self) -> float:
        """Rate in 10⁹ operations per second, two per multiply-accumulate."""
        return 2e-6 * (self.macs or 0) / self.ms if self.ms else 0.0

    @property
    def gbytes(self) -> float:
        """Memory traffic in 10⁹ bytes per second."""
        return 1e-6 * self.bytes_moved / self.ms if self.ms else 0.0


@dataclass(frozen=True)
class LayerTimes:
    """Every node in execution order.

    run_ms: the whole run, including time between nodes and profiling overhead. ceiling_gops: peak of the selected
    kernel tier times the threads, if the model has operators of com.onnxq and the number of threads is fixed; else the
    rate of its fastest layer. ceiling: which of the two, in words. runs: number of profiled runs.
    """

    layers: tuple[LayerTime, ...]
    run_ms: float
    ceiling_gops: float
    ceiling: str
    runs: int

    def worst(self, count: int = WORST) -> list[LayerTime]:
        """The nodes that lose the most time relative to the ceiling."""
        return sorted(self.layers, key=lambda layer: -layer.lost_ms)[:count]

    def by_op(self) -> dict[str, tuple[int, float, float]]:
        """{operator: (nodes, ms, share)}, slowest first."""
        ops = {layer.op for layer in self.layers}
        groups = {op: [layer for layer in self.layers if layer.op == op] for op in ops}
        rows = {op: (len(g), sum(x.ms for x in g), sum(x.share for x in g)) for op, g in groups.items()}
        return dict(sorted(rows.items(), key=lambda item: -item[1][1]))


def layer_times(
    model: Source,
    feeds: Mapping[str, NDArray],
    *,
    threads: int = 0,
    seconds: float = 2.0,
    ceiling_gops: float | None = None,
    custom_ops: Libraries = (),
) -> LayerTimes:
    """Profile a model in onnxruntime on one set of inputs.

    feeds: {input name: array}. custom_ops: libraries of operators that the model needs. threads: 0 is onnxruntime's
    default. seconds: approximate time. ceiling_gops: the rate to compare the layers with; None determines it as
    LayerTimes describes. Raises ModelError if onnxruntime rejects the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder, openable(model) as opened:
        optimized = Path(folder, "optimized.onnx")
        session = runtime.session(
            opened,
            threads=threads,
            profile=Path(folder, "profile"),
            optimized=optimized,
            custom_ops=runtime.libraries_of(model, custom_ops),
        )
        names = [o.name for o in session.get_outputs()]
        if any(array.dtype.kind in "OUS" for array in feeds.values()):  # onnxruntime has no OrtValue of texts
            run = partial(session.run, names, dict(feeds))
        else:
            run = partial(session.run_with_ort_values, names, {name: to_value(a) for name, a in feeds.items()})
        graph = onnx.load(str(optimized), load_external_data=False).graph
        runs = _runs(run, len(graph.node), seconds)
        events = json.loads(Path(session.end_profiling()).read_text())
    executed = list(_executed([e for e in events if e["cat"] == "Node"]))
    whole = [e["dur"] for e in events if e["cat"] == "Session" and e["name"] == "model_run"][-runs:]
    return _table(executed, graph, runs, 1e-3 * _middle(whole), threads, ceiling_gops)


def _runs(run: Any, nodes: int, seconds: float) -> int:
    """Run for about this many seconds after a warm-up run; returns the number of runs after it."""
    run()
    started = time.perf_counter()
    run()
    once = max(time.perf_counter() - started, 1e-6)
    count = min(max(int(seconds / once), RUNS_MIN), RUNS_MAX, max(EVENTS_MAX // max(nodes, 1), RUNS_MIN))
    for _ in range(count - 1):
        run()
    return count


def _executed(events: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events of the main graph's nodes in order; nodes inside a control-flow node count as part of it."""
    inside = -1
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] < inside:
            continue
        if event["args"]["op_name"] in CONTROL_FLOW:
            inside = event["ts"] + event["dur"]
        yield event


def _table(
    events: Sequence[dict[str, Any]],
    graph: onnx.GraphProto,
    runs: int,
    run_ms: float,
    threads: int,
    ceiling_gops: float | None,
) -> LayerTimes:
    times: dict[tuple[str, str], list[int]] = {}
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        key = (event["name"].removesuffix(EVENT), event["args"]["node_index"])
        times.setdefault(key, []).append(event["dur"])
        first.setdefault(key, event["args"])
    constants = {t.name: t for t in graph.initializer}
    nodes = _nodes(list(first), first, graph)
    each = {key: 1e-3 * _middle(found[-runs:]) for key, found in times.items()}
    work = {key: _macs(args, nodes.get(key), constants) for key, args in first.items()}
    ours = any(n.domain == DOMAIN for n in graph.node)
    peak, ceiling = _ceiling(ours, threads, ceiling_gops, [2e-6 * (work[k] or 0) / t for k, t in each.items() if t])
    total = sum(each.values()) or 1.0
    layers = tuple(
        LayerTime(
            key[0],
            args["op_name"],
            each[key],
            each[key] / total,
            work[key],
            _bytes_moved(args, nodes.get(key), constants),
            each[key] - (2e-6 * (work[key] or 0) / peak if peak else 0.0),
            _plan(args, nodes.get(key), constants),
        )
        for key, args in first.items()
    )
    return LayerTimes(layers, run_ms, peak, ceiling, runs)


def _ceiling(ours: bool, threads: int, given: float | None, rates: Sequence[float]) -> tuple[float, str]:
    if given is not None:
        return given, "as given"
    if ours and threads and library.has_library():
        try:
            peak = 2e-9 * library.peak_macs() * threads
        except OnnxqError:
            peak = 0.0
        if peak:
            return peak, f"inner loop of the {library.kernel_isa()} kernels on {threads} thread(s)"
    return max(rates, default=0.0), "its own fastest layer"


def _nodes(
    keys: Sequence[tuple[str, str]], events: Mapping[tuple[str, str], dict[str, Any]], graph: onnx.GraphProto
) -> dict[tuple[str, str], onnx.NodeProto]:
    """{event key: node}: by execution order, or by name if the file has a different order."""
    in_order = dict(zip(keys, graph.node, strict=False))
    if len(keys) == len(graph.node) and all(n.op_type == events[k]["op_name"] for k, n in in_order.items()):
        return in_order
    named = {n.name: n for n in graph.node}
    return {k: named[k[0]] for k in keys if k[0] in named and named[k[0]].op_type == events[k]["op_name"]}


def _middle(values: Sequence[float]) -> float:
    """Mean of the middle half: finer than a median of the profile's whole microseconds."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept) if kept else 0.0


def _shapes(values: Sequence[Mapping[str, Sequence[int]]]) -> list[tuple[int, ...]]:
    return [tuple(next(iter(v.values()))) for v in values]


def _macs(args: Mapping[str, Any], node: onnx.NodeProto | None, constants: Mapping[str, TensorProto]) -> int | None:
    """Multiply-accumulates per execution, from the shapes it ran with."""
    op = args["op_name"]
    if op not in CONVOLUTIONS and op not in PRODUCTS:
        return 0
    given, out = _shapes(args["input_type_shape"]), math.prod(_shapes(args["output_type_shape"])[0])
    if op in PRODUCTS:
        transposed = node is not None and any(a.name == "transA" and a.i for a in node.attribute)
        return out * given[0][-2 if transposed else -1]
    weight = _weight_shape(node, CONVOLUTIONS[op], given, constants)
    return None if weight is None else out * math.prod(weight[1:])


def _weight_shape(
    node: onnx.NodeProto | None, index: int, given: Sequence[tuple[int, ...]], constants: Mapping[str, TensorProto]
) -> tuple[int, ...] | None:
    """The weight's shape; None if the weight was packed and its node could not be identified."""
    if node is None or len(node.input) <= index:
        return None
    if node.input[index] in constants:
        return tuple(constants[node.input[index]].dims)
    return given[index] if len(given) == len(node.input) else None


def _plan(args: Mapping[str, Any], node: onnx.NodeProto | None, constants: Mapping[str, TensorProto]) -> str:
    if node is None or node.domain != DOMAIN or OPERATORS[node.op_type].products is None or not library.has_library():
        return ""
    weight = constants.get(node.input[1])
    kind, shape = next(iter(args["input_type_shape"][0].items()))
    return "" if weight is None else str(conv_plan(node, shape, weight, signed=kind == "int8") or "")


def _bytes_moved(args: Mapping[str, Any], node: onnx.NodeProto | None, constants: Mapping[str, TensorProto]) -> int:
    weights = {i for i in node.input if i in constants} if node is not None else set()
    stored = sum(_stored(constants[name]) for name in weights)
    return int(args["activation_size"]) + int(args["output_size"]) + (stored or int(args["parameter_size"]))


def _stored(tensor: TensorProto) -> int:
    return (math.prod(tensor.dims) * ELEMENT_BITS.get(tensor.data_type, 32) + 7) // 8
