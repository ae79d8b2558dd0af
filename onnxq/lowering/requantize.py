"""QuantizeLinear of tensors already in integers, Relu and Clip between codes: a new scale or range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.clamps import clamp_of
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import downstream, output, tables
from onnxq.lowering.integers import RANGES, TYPE_NUMBERS, Codes, Integers, codes_of
from onnxq.lowering.ledger import Work
from onnxq.lowering.output import Plan
from onnxq.lowering.rescale import IDENTITY, Rescale, rescale


def lower_quantize(work: Work, node: gs.Node) -> None:
    """A QuantizeLinear of a tensor already in integers: produces its codes, under its name. Raises RefusedError."""
    value, function = work.values.get(node.inputs[0]), work.functions.get(node.inputs[0])
    if value is None and function is None:
        return  # the first quantization of a float tensor: it stays
    codes = codes_of(node)
    if codes is None:
        raise RefusedError("its codes are not 8 bits with one constant scale")
    target = node.outputs[0]
    made = output.in_codes(codes)
    how = None if value is None or codes.holds(value) else _rescale(work, value, made)
    target.dtype = np.dtype(codes.type)
    work.take(node)
    if value is None:
        assert function is not None
        tables.emit(work, function, codes, target, [node])
    elif how is not None:
        _emit(work, value, made, how, target, [node])
    elif work.anonymous(value.tensor):
        work.adopt(value, target)
    else:
        work.replacement("Identity", [value.tensor], [target], {}, node.name)
    work.limits[target] = _limits(codes, value)


def lower_clamp(work: Work, node: gs.Node) -> None:
    """A Relu or Clip between codes, or of a wide value that others read unclipped. Raises RefusedError."""
    bounds = clamp_of(node)
    if bounds is None:
        raise RefusedError("its bounds are computed at run time or NaN")
    value = work.integers(node.inputs[0])
    made = output.plan(
        work, node.outputs[0], value.scale, value.axis, value.low - value.zero_point, value.high - value.zero_point,
        may_be_raw=value.wide, within=bounds,
    )  # fmt: skip
    if made.type == "int32" and not value.wide and value.axis is None:
        made = _on_its_grid(value, made) or made
    how = _rescale(work, value, made)
    sources = [node, *made.nodes()]
    target = output.settle(work, made, [node])
    _emit(work, value, made, how, target, sources)


def to_codes(work: Work, value: Integers, codes: Codes, base: str, sources: list[gs.Node]) -> Integers:
    """The value in these codes: itself, or through a Requantize before its reader."""
    if codes.holds(value):
        return value
    target = work.variable(f"{base}_codes", codes.type, value.tensor.shape)
    made = output.in_codes(codes)
    _emit(work, value, made, _rescale(work, value, made), target, sources, f"{target.name}_Requantize")
    least, most = _limits(codes, value)
    return Integers(target, np.asarray(codes.scale), codes.zero_point, None, np.asarray(least), np.asarray(most))


def one_scale(
    work: Work, value: Integers, base: str, sources: list[gs.Node], reach: float = output.WIDE_REACH
) -> Integers:
    """The value with one scale for the whole tensor and |q| ≤ reach: itself, or a wide one through a Requantize."""
    if value.axis is None and (not value.wide or value.reach <= reach):
        return value
    made = output.free(*value.reals(), reach=reach, step=downstream.next_step(sources[0].outputs[0]))
    target = work.variable(f"{base}_wide", "int32", value.tensor.shape)
    _emit(work, value, made, _rescale(work, value, made), target, sources, f"{target.name}_Requantize")
    return output.integers(made, target)


def clamped(
    work: Work, value: Integers, base: str, sources: list[gs.Node], low: int | None = None, high: int | None = None
) -> Integers:
    """The same integers, none below `low` or above `high`."""
    least, most = RANGES[value.type]
    least, most = least if low is None else low, most if high is None else high
    ends = (np.clip(v, least, most) for v in (value.low, value.high))
    target = work.variable(f"{base}_clamped", value.type, value.tensor.shape)
    attrs = {
        "x_zero_point": value.zero_point,
        "axis": -1,
        "y_zero_point": value.zero_point,
        "qmin": least,
        "qmax": most,
        "y_type": TYPE_NUMBERS[value.type],
    }
    inputs = [value.tensor, *work.vectors(target.name, IDENTITY)]
    work.own("Requantize", inputs, target, attrs, sources, IDENTITY, name=f"{target.name}_Requantize")
    return Integers(target, value.scale, value.zero_point, value.axis, *ends)


def _rescale(work: Work, value: Integers, made: Plan) -> Rescale:
    return IDENTITY if made.raw else rescale(work.form, [value.scale / made.unit], [value.reach])


def _emit(
    work: Work, value: Integers, made: Plan, how: Rescale, target: gs.Tensor, sources: list[gs.Node], name: str = ""
) -> None:
    attrs = {
        "x_zero_point": value.zero_point,
        "axis": value.axis if value.axis is not None else -1,
        **made.attributes(),
    }
    inputs = [value.tensor, *work.vectors(target.name, how)]
    work.own("Requantize", inputs, target, attrs, sources, how, name=name)


def _on_its_grid(value: Integers, made: Plan) -> Plan | None:
    """The clipped value in its own 8-bit codes if the bounds are codes; None if they fall between two codes."""
    codes = Codes(float(value.scale), value.zero_point, value.type, *RANGES[value.type])
    clipped = codes.clipped(made.end.low, made.end.high)

    def real(code: int) -> float:
        return float(np.float32(codes.scale) * np.float32(code - codes.zero_point))

    low, high = made.end.low, made.end.high
    exact = low <= real(int(value.low)) or low == real(clipped.qmin)
    exact = exact and (high >= real(int(value.high)) or high == real(clipped.qmax))
    if not exact or made.end.factor != 1.0:
        return None
    plan = output.in_codes(clipped, made.end)
    least, most = (np.asarray(np.clip(v, clipped.qmin, clipped.qmax)) for v in (value.low, value.high))
    return replace(plan, low=least, high=most, raw=True)


def _limits(codes: Codes, value: Integers | None) -> tuple[int, int]:
    if value is None or not codes.same_grid(value):
        return codes.qmin, codes.qmax
    least, most = max(codes.qmin, int(np.min(value.low))), min(codes.qmax, int(np.max(value.high)))
    return (least, most) if least <= most else (codes.qmin, codes.qmax)


HANDLERS = dict.fromkeys(("Relu", "Clip"), tables.or_function(lower_clamp))
