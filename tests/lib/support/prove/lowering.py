"""Lowering, and its proof: every Q point of a QDQ model against the integer model, fed the QDQ model's codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq import operators, pipeline
from onnxq.context import PassContext
from onnxq.graph.model import Model, from_proto, load, to_proto
from onnxq.measure.code_steps import SIXTEEN_BIT_STEP
from onnxq.pipeline import PassReport
from support.build import Qdq, uniform
from support.runs import run, session

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
        operators.attach_functions(self.proto)

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
        expected = run(lowered.qdq, feed, names=names)
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
        apart = np.abs(expected.astype(np.int64) - found.astype(np.int64))
        return np.rint(apart / SIXTEEN_BIT_STEP).astype(np.int64) if expected.dtype == np.int16 else apart
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
