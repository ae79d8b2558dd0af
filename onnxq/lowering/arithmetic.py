"""Add, Sub, Sum, Mul, Div and BatchNormalization: one multiplier per input, one rounding (HAWQ-V3, eq. 9).

A product with positive constants is free: the integers stay the same and only represent different real values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import constant_values, is_constant
from onnxq.graph.qdq import constant_reals, dequantizer, is_quantized_constant
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import downstream, output
from onnxq.lowering.integers import EIGHT_BIT, Integers, dequantized, widens
from onnxq.lowering.ledger import Work
from onnxq.lowering.requantize import one_scale
from onnxq.lowering.rescale import Rescale, rescale
from onnxq.lowering.tables import or_function
from onnxq.numeric.affine import batch_norm

# A float constant is added in steps of 2^-FINER of the result's: fine enough, and its multiplier is exact.
FINER = 12


def lower_sum(work: Work, node: gs.Node) -> None:
    """Add, Sub and Sum. Raises RefusedError."""
    if len(node.inputs) == 1:
        raise RefusedError("it has one input")
    rank = _rank(node.outputs[0])
    terms = [_term(work, t, rank) for t in node.inputs]
    if not any(isinstance(t, Integers) and not is_constant(t.tensor) for t in terms):
        raise RefusedError("all its inputs are constant")
    while len(terms) > 2:
        terms = [partial_sum(work, node, terms[0], terms[1], rank), *terms[2:]]
    lower_pair(work, node, terms[0], terms[1], rank, "Sub" if node.op == "Sub" else "Add")


def lower_pair(work: Work, node: gs.Node, first: Term, second: Term, rank: int, op: str = "Add") -> None:
    """first + second or first − second in place of the node. Raises RefusedError."""
    low, high = _extremes(first, second, op)
    made = output.plan(work, node.outputs[0], np.asarray(1.0), None, np.asarray(low), np.asarray(high))
    sources = [node, *made.nodes()]
    a, b = _one_axis(work, node, _in_integers(work, first, made), _in_integers(work, second, made), rank)
    how = _rescale_pair(work, a, b, made)
    target = output.settle(work, made, [node])
    _emit_sum(work, op, a, b, made, how, target, rank, sources)


def _rescale_pair(work: Work, a: Integers, b: Integers, made: output.Plan) -> Rescale:
    return rescale(work.form, [a.scale / made.unit, b.scale / made.unit], [a.reach, b.reach])


@dataclass(frozen=True)
class Constant:
    """A float constant in a sum: its integers depend on the scale of the result."""

    name: str
    values: NDArray[np.float64]

    def reals(self) -> tuple[float, float]:
        """The smallest and the largest real number."""
        return float(self.values.min(initial=0.0)), float(self.values.max(initial=0.0))


Term = Integers | Constant


def _term(work: Work, tensor: gs.Tensor, rank: int) -> Term:
    """An operand of a sum: the integers of an activation, the codes of a constant, or a float constant."""
    if not is_constant(tensor) and not is_quantized_constant(tensor):
        return work.integers(tensor)
    node = dequantizer(tensor)
    if node is not None and constant_values(node.inputs[0]) is not None:
        value = dequantized(node)
        if value is not None and value.type in EIGHT_BIT and value.axis is None:
            codes = constant_values(node.inputs[0])
            assert codes is not None
            ends = (np.asarray(int(v)) for v in (codes.min(initial=0), codes.max(initial=0)))
            return Integers(value.tensor, value.scale, value.zero_point, None, *ends)
    reals = constant_reals(tensor)
    if reals is None:
        raise RefusedError(f"its input {tensor.name} is computed at run time from constants")
    if not np.isfinite(reals).all():
        raise RefusedError("a constant input contains NaN or infinity")
    return Constant(tensor.name, reals.astype(np.float64))


def _in_integers(work: Work, term: Term, made: output.Plan) -> Integers:
    """A float constant in int32, in steps of the result's step over a power of two, so that its factor is exact."""
    if isinstance(term, Integers):
        return term
    step = float(made.unit)
    largest = float(np.abs(term.values).max(initial=0.0)) / step
    room = 30 - math.frexp(largest)[1]  # largest · 2^room < 2^30
    scale = step * 2.0 ** -(min(FINER, room) if made.type != "int32" else min(0, room))
    values = np.rint(term.values / scale).astype(np.int32)
    ends = (np.asarray(int(v)) for v in (values.min(initial=0), values.max(initial=0)))
    return Integers(work.constant(f"{term.name}_wide", values), np.asarray(scale), 0, None, *ends)


def _rank(tensor: gs.Tensor) -> int:
    if tensor.shape is None:
        raise RefusedError("the rank of its result is unknown")
    return len(tensor.shape)


def _extremes(a: Term, b: Term, op: str) -> tuple[float, float]:
    (a_low, a_high), (b_low, b_high) = a.reals(), b.reals()
    return (a_low + b_low, a_high + b_high) if op == "Add" else (a_low - b_high, a_high - b_low)


def _channel_axis(value: Integers, rank: int) -> int | None:
    """The axis of the result along which an operand's channels run."""
    if value.axis is None:
        return None
    assert value.tensor.shape is not None
    return value.axis + rank - len(value.tensor.shape)


def _one_axis(work: Work, node: gs.Node, a: Integers, b: Integers, rank: int) -> tuple[Integers, Integers]:
    """The operands; one of them is requantized to one scale if their channels are on different axes."""
    axes = [_channel_axis(v, rank) for v in (a, b)]
    if None not in axes and axes[0] != axes[1]:
        b = one_scale(work, b, node.inputs[1].name, [node])
    return a, b


def _emit_sum(
    work: Work,
    op: str,
    a: Integers,
    b: Integers,
    made: output.Plan,
    how: Rescale,
    target: gs.Variable,
    rank: int,
    sources: list[gs.Node],
    name: str = "",
) -> None:
    axis = next((x for x in (_channel_axis(a, rank), _channel_axis(b, rank)) if x is not None), -1)
    attrs = {"a_zero_point": a.zero_point, "b_zero_point": b.zero_point, "axis": axis, **made.attributes()}
    vectors = work.vectors(target.name, how, ("a_", "b_"))
    work.own(op, [a.tensor, b.tensor, *vectors], target, attrs, sources, how, name=name)


def partial_sum(work: Work, node: gs.Node, first: Term, second: Term, rank: int, op: str = "Add") -> Integers:
    """first + second (or the difference) as a wide value: one step of a longer sum."""
    made = output.free(*_extremes(first, second, op), step=downstream.next_step(node.outputs[0]))
    a, b = _one_axis(work, node, _in_integers(work, first, made), _in_integers(work, second, made), rank)
    how = _rescale_pair(work, a, b, made)
    result = node.outputs[0]
    whole = any(v.tensor.shape is not None and list(v.tensor.shape) == list(result.shape) for v in (a, b))
    target = work.variable(f"{result.name}_partial", "int32", result.shape if whole else None)
    _emit_sum(work, op, a, b, made, how, target, rank, [node], f"{target.name}_{op}")
    return output.integers(made, target)


def lower_product(work: Work, node: gs.Node) -> None:
    """Mul and Div. Raises RefusedError."""
    known = [is_constant(t) or is_quantized_constant(t) for t in node.inputs]
    if all(known):
        raise RefusedError("all its inputs are constant")
    if node.op == "Div" and not known[1]:
        raise RefusedError("it divides by an activation")
    if any(known):
        index = 1 if known[1] else 0
        value = work.integers(node.inputs[1 - index])
        if _lower_factor(work, node, value, node.inputs[index], _rank(node.outputs[0])):
            return
        if node.op == "Div":
            raise RefusedError("it divides by a constant that is not positive, or varies along more than one axis")
    a, b = (_factor(work, t) for t in node.inputs)
    scale, reach = np.asarray(a.scale * b.scale), a.reach * b.reach
    made = output.plan(work, node.outputs[0], scale, None, np.asarray(-reach), np.asarray(reach))
    sources = [node, *made.nodes()]
    how = rescale(work.form, [scale / made.unit], [reach])
    target = output.settle(work, made, [node])
    attrs = {"a_zero_point": a.zero_point, "b_zero_point": b.zero_point, **made.attributes()}
    work.own("Mul", [a.tensor, b.tensor, *work.vectors(target.name, how)], target, attrs, sources, how)


def _factor(work: Work, tensor: gs.Tensor) -> Integers:
    if not is_constant(tensor) and not is_quantized_constant(tensor):
        return work.codes(tensor, "its factor")
    node = dequantizer(tensor)
    value = dequantized(node) if node is not None and constant_values(node.inputs[0]) is not None else None
    if value is None or value.type not in EIGHT_BIT or value.axis is not None:
        raise RefusedError("its constant factor is not quantized, not positive, or varies along more than one axis")
    return value


def _lower_factor(work: Work, node: gs.Node, value: Integers, constant: gs.Tensor, rank: int) -> bool:
    """A product with one constant per channel: positive ones only change the real values that integers represent."""
    reals = constant_reals(constant)
    if reals is None or reals.size == 0 or not np.isfinite(reals).all():
        raise RefusedError("its constant factor is empty, not finite, or computed at run time")
    with np.errstate(divide="ignore"):
        factors = 1.0 / reals.astype(np.float64) if node.op == "Div" else reals.astype(np.float64)
    found = by_channel(factors, rank)
    shape = value.tensor.shape
    if found is None or shape is None or len(shape) != rank or widens(factors.shape, shape):
        return False
    factor, axis = found
    if axis is not None and (shape[axis] != factor.size or (value.axis is not None and value.axis != axis)):
        return False
    if np.all(factor > 0) and np.isfinite(factor).all():
        work.define(node.outputs[0], value.scaled(factor, axis))
        work.take(node)
        return True
    if not np.isfinite(factor).all():
        return False
    _lower_signed(work, node, value, factor, axis)
    return True


def by_channel(values: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], int | None] | None:
    """Values that are all equal, as (); values that vary along one axis, as (channels,) with that axis; else None."""
    if values.ndim > rank:
        return None
    if (values == values.flat[0]).all():
        return np.asarray(values.flat[0]), None
    axes = [i for i, d in enumerate(values.shape) if d != 1]
    return (values.reshape(-1), axes[0] + rank - values.ndim) if len(axes) == 1 else None


def _lower_signed(work: Work, node: gs.Node, value: Integers, factor: NDArray[np.float64], axis: int | None) -> None:
    """Factors of both signs: the tensor minus itself, each with the multipliers of its sign."""
    plus, minus = value.scaled(np.maximum(factor, 0.0), axis), value.scaled(np.maximum(-factor, 0.0), axis)
    lower_pair(work, node, plus, minus, _rank(node.outputs[0]), "Sub")


def lower_batchnorm(work: Work, node: gs.Node) -> None:
    """A BatchNormalization not folded into a layer: one factor and one constant per channel. Raises RefusedError."""
    value = work.integers(node.inputs[0])
    constants = [constant_reals(t) for t in node.inputs[1:5]]
    if any(c is None for c in constants) or int(node.attrs.get("training_mode", 0)):
        raise RefusedError("its statistics are computed at run time")
    gamma, beta, mean, var = (c for c in constants if c is not None)
    if len({c.shape for c in (gamma, beta, mean, var)}) > 1:
        raise RefusedError("its parameters differ in shape")
    step = batch_norm(gamma, beta, mean, var, float(node.attrs.get("epsilon", 1e-5)))
    if not step.is_finite:
        raise RefusedError("its factors are not finite")
    rank = _rank(node.outputs[0])
    if value.axis is not None and value.axis != 1:
        raise RefusedError("the scales of its input are not along its channel axis")
    shift = Constant(f"{node.name}_shift", step.b.reshape(-1, *[1] * (rank - 2)))
    if np.all(step.a >= 0):
        lower_pair(work, node, value.scaled(step.a, 1), shift, rank)
        return
    plus, minus = value.scaled(np.maximum(step.a, 0.0), 1), value.scaled(np.maximum(-step.a, 0.0), 1)
    lower_pair(work, node, partial_sum(work, node, plus, minus, rank, "Sub"), shift, rank)


__all__ = ["by_channel", "lower_batchnorm", "lower_pair", "lower_product", "lower_sum", "partial_sum"]


HANDLERS = {
    **dict.fromkeys(("Add", "Sub", "Sum"), or_function(lower_sum)),
    **dict.fromkeys(("Mul", "Div"), or_function(lower_product)),
    "BatchNormalization": lower_batchnorm,
}
