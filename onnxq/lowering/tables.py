"""Functions of one 8-bit value: a table of 256 codes, exact whatever the function.

Element by element operators on one quantized tensor and constants are composed as functions of its codes (x·sigmoid(x),
GELU from Erf, HardSwish in pieces…) up to the QuantizeLinear, which makes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.lowering import output
from onnxq.lowering.functions import ACTIVATIONS
from onnxq.lowering.output import activation_bounds
from onnxq.lowering.values import EIGHT_BIT, RANGES, Codes, RefusedError
from onnxq.lowering.work import Function, Work
from onnxq.match import input_at, is_op
from onnxq.qdq import constant_reals

Reals = NDArray[np.float64]
FLOAT_MAX = float(np.finfo(np.float32).max)
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Max": np.maximum,
    "Min": np.minimum,
}  # fmt: skip


UNARY = tuple(ACTIVATIONS)


def is_unary(node: gs.Node) -> bool:
    """Whether the node is a function of its first input that a table can hold."""
    return is_op(node, *UNARY)


def lower_function(work: Work, node: gs.Node) -> None:
    """One more function of codes: a table if a QuantizeLinear is behind it, else kept in mind. Raises RefusedError."""
    source, reals = _evaluate(work, node)
    if not np.isfinite(reals).all():
        reals = np.nan_to_num(reals, nan=0.0, posinf=FLOAT_MAX, neginf=-FLOAT_MAX)
    end = output.follow(work, node.outputs[0])
    codes = output.wanted(work, end.tensor)
    if codes is None:
        work.functions[id(node.outputs[0])] = Function(source, reals)
        return
    made = output.planned(end, codes)
    nodes = [node, *made.nodes()]
    target = output.settle(work, made, [node])
    clipped = np.clip(reals * end.factor, end.low, end.high)
    emit(work, Function(source, clipped), codes.clipped(end.low, end.high), target, nodes)


def emit(work: Work, function: Function, codes: Codes, target: gs.Tensor, sources: list[gs.Node]) -> None:
    """The LookupTable of a function."""
    dtype = np.dtype(codes.type)
    with np.errstate(over="ignore"):
        steps = np.rint(function.reals.astype(np.float32) / np.float32(codes.scale)).astype(np.float64)
    table = np.clip(steps + codes.zero_point, codes.qmin, codes.qmax).astype(dtype)
    constant = work.constant(f"{target.name}_table", table)
    work.own("LookupTable", [function.source.tensor, constant], target, {}, sources)


def involves_function(work: Work, node: gs.Node) -> bool:
    """Whether an operand is a function of codes."""
    return any(id(t) in work.functions for t in node.inputs)


def _evaluate(work: Work, node: gs.Node) -> tuple[Any, Reals]:
    """The source and the values of the function that the node's result is."""
    if is_unary(node):
        operand = _operand(work, node, node.inputs[0])
        if operand is None:
            raise RefusedError("its input is a constant")
        values = ACTIVATIONS[node.op](operand.reals, _parameters(node))
        return operand.source, np.asarray(values, np.float64)
    bounds = activation_bounds(node)
    if bounds is not None:
        operand = _operand(work, node, node.inputs[0])
        assert operand is not None
        return operand.source, np.clip(operand.reals, min(bounds), bounds[1])
    if not is_op(node, *BINARY) or len(node.inputs) != 2:
        raise RefusedError("it is no function of one quantized tensor")
    operands = [_operand(work, node, t) for t in node.inputs]
    sources = [o.source for o in operands if o is not None]
    if any(s.tensor is not sources[0].tensor for s in sources):
        raise RefusedError("it joins two tensors, one of which has no QuantizeLinear behind the function that makes it")
    operated = [_uniform(t) if o is None else o.reals for t, o in zip(node.inputs, operands, strict=True)]
    with np.errstate(all="ignore"):
        return sources[0], np.asarray(BINARY[node.op](*operated), np.float64)


def _operand(work: Work, node: gs.Node, tensor: gs.Tensor) -> Function | None:
    """A tensor as a function of codes, or None if it is a constant."""
    function = work.functions.get(id(tensor))
    if function is not None:
        return function
    if id(tensor) not in work.values and constant_reals(tensor) is not None:
        return None
    value = work.codes(tensor)
    least, most = RANGES[value.type]
    assert value.type in EIGHT_BIT
    codes = np.arange(least, most + 1)
    reals = (codes - value.zero_point).astype(np.float32) * np.float32(value.scale)
    return Function(value, reals.astype(np.float64))


def _uniform(tensor: gs.Tensor) -> float:
    values = constant_reals(tensor)
    assert values is not None
    if values.size == 0 or not (values == values.flat[0]).all():
        raise RefusedError(f"its constant {tensor.name} is not one number")
    return float(values.flat[0])


def _parameters(node: gs.Node) -> dict[str, Any]:
    """The attributes of an activation; PRelu's slope and Pow's exponent too."""
    found = dict(node.attrs)
    second = input_at(node, 1)
    if second is not None:
        found["second"] = _uniform(second)
    return found


__all__ = ["UNARY", "emit", "involves_function", "is_unary", "lower_function"]
