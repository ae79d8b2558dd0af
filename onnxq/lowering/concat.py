"""Concat, Where, Max and Min: several tensors combined into one, each with its own scale (HAWQ-V3, eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import is_constant
from onnxq.graph.qdq import constant_reals, is_quantized_constant
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import downstream, output
from onnxq.lowering.integers import CODES, EIGHT_BIT, RANGES, Codes, Integers
from onnxq.lowering.ledger import Work
from onnxq.lowering.movers import JOINERS
from onnxq.lowering.output import Plan
from onnxq.lowering.requantize import one_scale, to_codes
from onnxq.lowering.rescale import rescale_each
from onnxq.lowering.tables import or_function

MOST = 8  # parts of one Concat operator of com.onnxq


@dataclass(frozen=True)
class Part:
    """An input to combine: the integers of an activation, or the reals of a constant."""

    name: str
    value: Integers | None
    reals: NDArray | None

    def range(self) -> tuple[float, float]:
        """The smallest and largest real number in it."""
        if self.value is not None:
            return self.value.reals()
        assert self.reals is not None
        return float(self.reals.min(initial=0.0)), float(self.reals.max(initial=0.0))


def lower_join(work: Work, node: gs.Node) -> None:
    """A node that combines the values of several tensors into one. Raises RefusedError."""
    condition = list(node.inputs[:1]) if node.op == "Where" else []
    parts = [_part(work, t) for t in node.inputs[len(condition) :]]
    if len(parts) == 1:
        raise RefusedError("it has one input")
    if all(p.value is None for p in parts):
        raise RefusedError("all its inputs are constant")
    codes = downstream.wanted(work, node.outputs[0]) or _common_grid(parts)
    if codes is not None and codes.type not in EIGHT_BIT and node.op != "Concat":
        raise RefusedError(f"onnxruntime has no {node.op} of {codes.type}")
    if codes is not None and (node.op != "Concat" or all(p.value is None or codes.holds(p.value) for p in parts)):
        _lower_plain(work, node, condition, parts, codes)
    elif node.op != "Concat":
        raise RefusedError("its inputs have different scales and no QuantizeLinear follows it")
    elif len(parts) <= MOST:
        _lower_concat(work, node, parts)
    elif codes is not None:
        _lower_plain(work, node, condition, parts, codes)
    else:
        raise RefusedError(f"it joins {len(parts)} tensors of different scales with no QuantizeLinear after it")


def _part(work: Work, tensor: gs.Tensor) -> Part:
    if not is_constant(tensor) and not is_quantized_constant(tensor):
        return Part(tensor.name, work.integers(tensor), None)
    reals = constant_reals(tensor)
    if reals is None or not np.isfinite(reals).all():
        raise RefusedError(f"its constant input {tensor.name} is not finite, or computed at run time")
    return Part(tensor.name, None, reals)


def _common_grid(parts: list[Part]) -> Codes | None:
    """The grid that all parts already share, if they do and none is a constant."""
    values = [p.value for p in parts if p.value is not None]
    head = values[0]
    if len(values) < len(parts) or head.type not in CODES or head.axis is not None:
        return None
    grid = Codes(float(head.scale), head.zero_point, head.type, *RANGES[head.type])
    return grid if all(grid.same_grid(v) for v in values) else None


def _lower_plain(work: Work, node: gs.Node, condition: list[gs.Tensor], parts: list[Part], codes: Codes) -> None:
    """The standard operator, on parts requantized to these codes."""
    inputs: list[gs.Tensor] = []
    for part in parts:
        if part.value is not None:
            inputs.append(to_codes(work, part.value, codes, part.name, [node]).tensor)
        else:
            assert part.reals is not None
            inputs.append(work.constant(f"{part.name}_codes", _coded(part.reals, codes)))
    result = node.outputs[0]
    target = work.variable(f"{result.name}_codes", codes.type, result.shape)
    low, high = np.asarray(codes.qmin), np.asarray(codes.qmax)
    work.define(result, Integers(target, np.asarray(codes.scale), codes.zero_point, None, low, high))
    name, attrs = node.name, dict(node.attrs)
    work.take(node)
    work.replacement(node.op, [*condition, *inputs], [target], attrs, name)


def _coded(reals: NDArray, codes: Codes) -> NDArray:
    """The codes that QuantizeLinear produces from constants."""
    with np.errstate(over="ignore"):
        steps = np.rint(reals.astype(np.float32) / np.float32(codes.scale)).astype(np.float64)
    return np.clip(steps + codes.zero_point, codes.qmin, codes.qmax).astype(codes.type)


def _lower_concat(work: Work, node: gs.Node, parts: list[Part]) -> None:
    """Concat2 … Concat8: each part has its own multiplier and shift."""
    low, high = min(p.range()[0] for p in parts), max(p.range()[1] for p in parts)
    made = output.plan(work, node.outputs[0], np.asarray(1.0), None, np.asarray(low), np.asarray(high))
    sources = [node, *made.nodes()]
    values = [_in_one_scale(work, part, made, sources) for part in parts]
    how = rescale_each(work.form, [float(v.scale / made.unit) for v in values], [v.reach for v in values])
    axis = int(node.attrs["axis"])
    target = output.settle(work, made, [node])
    attrs = {"axis": axis, "zero_points": [v.zero_point for v in values], **made.attributes()}
    inputs = [*work.vectors(target.name, how), *(v.tensor for v in values)]
    work.own(f"Concat{len(values)}", inputs, target, attrs, sources, how)


def _in_one_scale(work: Work, part: Part, made: Plan, sources: list[gs.Node]) -> Integers:
    """The part with one scale: that of the result's codes if it has one per channel or is a constant."""
    scale = float(made.unit)
    codes = Codes(scale, made.zero_point, made.type, made.qmin, made.qmax)
    if part.value is not None:
        if part.value.axis is not None and made.type != "int32":
            return to_codes(work, part.value, codes, part.name, sources)
        return one_scale(work, part.value, part.name, sources)
    assert part.reals is not None
    wide = np.rint(part.reals.astype(np.float64) / scale)
    values = wide.astype(np.int32) if made.type == "int32" else _coded(part.reals, codes)
    low, high = np.asarray(int(values.min(initial=0))), np.asarray(int(values.max(initial=0)))
    return Integers(work.constant(f"{part.name}_codes", values), np.asarray(scale), made.zero_point, None, low, high)


HANDLERS = dict.fromkeys(JOINERS, or_function(lower_join))
