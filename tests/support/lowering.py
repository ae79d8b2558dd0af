"""Helpers of the lowering tests: every Q point of a QDQ model against the integer model, fed the QDQ model's codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq import ops, pipeline
from onnxq.context import PassContext
from onnxq.graph.model import Model, from_proto, load, to_proto
from onnxq.pipeline import PassReport

Feed = Mapping[str, NDArray]
LOWER = "convert-opset{version=21},lower-dyadic"
FUSE = f"{LOWER},fuse-residual"
DOMAIN = "com.onnxq"


@dataclass(frozen=True)
class Point:
    """One Q point: how far its codes are off, and how many elements differ of how many."""

    name: str
    max_lsb: int
    differ: int
    elements: int

    @property
    def share(self) -> float:
        return self.differ / max(self.elements, 1)


@dataclass
class Lowered:
    """A QDQ model, the integer model made of it, and the reports of the passes."""

    qdq: onnx.ModelProto
    model: Model
    reports: list[PassReport]
    proto: onnx.ModelProto = field(init=False)

    def __post_init__(self) -> None:
        self.proto = to_proto(self.model)
        ops.attach_functions(self.proto)

    @property
    def report(self) -> PassReport:
        """Of lower-dyadic."""
        return next(r for r in self.reports if r.text.startswith("lower-dyadic"))

    @property
    def reasons(self) -> dict[str, str]:
        """Why nodes stayed float, by node."""
        return {failure.node: failure.reason for failure in self.report.skipped}

    @property
    def ops(self) -> dict[str, int]:
        """How many of each operator, ours as "onnxq.Conv"."""
        return dict(Counter(label(n) for n in self.proto.graph.node))

    def node(self, op: str) -> onnx.NodeProto:
        """The only node of an operator, named as in `ops`."""
        (found,) = (n for n in self.proto.graph.node if label(n) == op)
        return found


def label(node: onnx.NodeProto) -> str:
    """The operator, ours as "onnxq.Conv"."""
    return f"onnxq.{node.op_type}" if node.domain == DOMAIN else node.op_type


def lower(qdq: onnx.ModelProto | Model, text: str = LOWER) -> Lowered:
    """Run the lowering passes on a copy of a QDQ model."""
    proto = to_proto(qdq) if isinstance(qdq, Model) else qdq
    model = from_proto(proto)
    reports = pipeline.run(model, pipeline.parse(text), PassContext(model))
    lowered = Lowered(proto, model, reports)
    onnx.checker.check_model(lowered.proto, full_check=True)
    return lowered


def again(lowered: Lowered, text: str = LOWER) -> int:
    """How much a second run over the result changes."""
    model = load(lowered.proto)
    return sum(r.changed for r in pipeline.run(model, pipeline.parse(text), PassContext(model)))


def session(proto: onnx.ModelProto, optimize: bool = False) -> ort.InferenceSession:
    """Plain onnxruntime, no kernel library: com.onnxq runs on its function bodies."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def q_points(proto: onnx.ModelProto) -> list[str]:
    """The codes of every activation in a QDQ model that something comes of, by name."""
    constants = {t.name for t in proto.graph.initializer}
    live = {o.name for o in proto.graph.output}
    for node in reversed(proto.graph.node):
        if live.intersection(node.output):
            live.update(node.input)
    return [
        n.output[0]
        for n in proto.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] not in constants and n.output[0] in live
    ]


def run(proto: onnx.ModelProto, feed: Feed, names: Sequence[str] = ()) -> dict[str, NDArray]:
    """Outputs and these tensors, by name, without onnxruntime's optimizations."""
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    present = {o.name for o in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    opened = session(observed)
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, dict(feed)), strict=True))


def cut(proto: onnx.ModelProto, codes: Mapping[str, NDArray]) -> onnx.ModelProto:
    """The integer model with every reader of these tensors fed from outside, and the tensors as outputs."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    graph = found.graph
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in codes:
                node.input[i] = f"{name}_fed"
    for name, values in codes.items():
        assert name in made, f"the integer model has no tensor {name}"
        kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(f"{name}_fed", kind, [None] * values.ndim))
        if name not in {o.name for o in graph.output}:
            graph.output.append(onnx.helper.make_tensor_value_info(name, kind, [None] * values.ndim))
    return found


def compare(lowered: Lowered, feeds: Iterable[Feed]) -> list[Point]:
    """Each layer of the integer model, fed the QDQ model's own codes, against the codes that the QDQ model makes next.

    Float outputs count as codes of the float output's own scale where it is dequantized; others in steps of 1/127 of
    their largest magnitude.
    """
    names = q_points(lowered.qdq)
    tally: dict[str, list[int]] = {}
    opened = None
    for feed in feeds:
        expected = run(lowered.qdq, feed, names)
        codes = {n: expected[n] for n in names}
        if opened is None:
            opened = session(cut(lowered.proto, codes))
        wanted = [o.name for o in opened.get_outputs()]
        found = dict(
            zip(wanted, opened.run(wanted, {**feed, **{f"{n}_fed": v for n, v in codes.items()}}), strict=True)
        )
        for name in wanted:
            apart = _steps(expected[name], found[name])
            row = tally.setdefault(name, [0, 0, 0])
            row[0] = max(row[0], int(apart.max(initial=0)))
            row[1] += int(np.count_nonzero(apart))
            row[2] += apart.size
    return [Point(name, *row) for name, row in tally.items()]


def _steps(expected: NDArray, found: NDArray) -> NDArray[np.int64]:
    assert expected.shape == found.shape, (expected.shape, found.shape)
    assert expected.dtype == found.dtype, (expected.dtype, found.dtype)
    if expected.dtype.kind != "f":
        return np.abs(expected.astype(np.int64) - found.astype(np.int64))
    step = float(np.abs(expected).max(initial=0.0)) / 127 or 1.0
    return np.rint(np.abs(expected.astype(np.float64) - found.astype(np.float64)) / step).astype(np.int64)


def assert_same(lowered: Lowered, feeds: Iterable[Feed], share: float = 0.001) -> list[Point]:
    """At most 1 LSB, in at most `share` of each layer's elements (or one element of a small layer)."""
    points = compare(lowered, feeds)
    for point in points:
        assert point.max_lsb <= 1, point
        assert point.differ <= max(1, share * point.elements), point
    return points


def check(made: Qdq | onnx.ModelProto, text: str = FUSE, share: float = 0.001, **how: Any) -> Lowered:
    """Lower a model, hold every Q point against the QDQ model, and run the passes again: nothing may change."""
    proto = made.proto() if isinstance(made, Qdq) else made
    lowered = lower(proto, text)
    assert_same(lowered, uniform(proto, **how), share)
    assert again(lowered, text) == 0
    return lowered


class Qdq:
    """A small QDQ model: nodes as ONNX text, quantized tensors and constants by name.

    `q` quantizes a float tensor t: nodes behind it read `t_d`, its codes are `t_q`. `weight` stores integers behind a
    DequantizeLinear: nodes read `w_d`.
    """

    def __init__(self, inputs: str, outputs: str, opset: int = 21) -> None:
        self.inputs, self.outputs, self.opset = inputs, outputs, opset
        self.nodes: list[str] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, name: str, values: Any, dtype: Any = np.float32) -> Qdq:
        """A constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(values).astype(dtype), name))
        return self

    def q(self, name: str, scale: float, zero_point: int = 128, dtype: Any = np.uint8, label: str = "") -> Qdq:
        """Q/DQ behind the float tensor `name`; label: for another pair behind the same tensor."""
        label = label or name
        self.const(f"{label}_s", scale).const(f"{label}_z", zero_point, dtype)
        return self.node(
            f"{label}_q = QuantizeLinear({name}, {label}_s, {label}_z) "
            f"{label}_d = DequantizeLinear({label}_q, {label}_s, {label}_z)"
        )

    def weight(
        self, name: str, codes: Any, scale: Any, zero_point: Any = 0, axis: int | None = None, dtype: Any = np.int8
    ) -> Qdq:
        """Integers behind a DequantizeLinear."""
        scales = np.asarray(scale, np.float32)
        self.const(f"{name}_i", codes, dtype).const(f"{name}_s", scales)
        self.const(f"{name}_z", np.broadcast_to(np.asarray(zero_point), scales.shape), dtype)
        attribute = "" if axis is None else f"<axis={axis}>"
        return self.node(f"{name}_d = DequantizeLinear{attribute}({name}_i, {name}_s, {name}_z)")

    def bias(self, name: str, codes: Any, scale: Any) -> Qdq:
        """int32 behind a DequantizeLinear without zero point."""
        scales = np.asarray(scale, np.float32)
        self.const(f"{name}_i", codes, np.int32).const(f"{name}_s", scales)
        attribute = "<axis=0>" if scales.ndim else ""
        return self.node(f"{name}_d = DequantizeLinear{attribute}({name}_i, {name}_s)")

    def node(self, text: str) -> Qdq:
        """Nodes as ONNX text."""
        self.nodes.append(text)
        return self

    def proto(self) -> onnx.ModelProto:
        """The model, checked."""
        body = "\n".join(self.nodes)
        text = f'<ir_version: 10, opset_import: ["": {self.opset}]>\ng ({self.inputs}) => ({self.outputs}) {{ {body} }}'
        parsed = onnx.parser.parse_model(text)
        parsed.graph.initializer.extend(self.constants)
        onnx.checker.check_model(parsed, full_check=True)
        return parsed


def uniform(proto: onnx.ModelProto, count: int = 2, low: float = -1.0, high: float = 1.0, seed: int = 0) -> list[Feed]:
    """Random float feeds; unknown dimensions are 2."""
    rng = np.random.default_rng(seed)
    return [
        {v.name: rng.uniform(low, high, _dims(v)).astype(np.float32) for v in proto.graph.input} for _ in range(count)
    ]


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
