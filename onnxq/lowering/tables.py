"""Functions of one 8-bit value: a table of 256 codes, exact whatever the function.

Elementwise operators on one quantized tensor and constants are composed as functions of its codes (x·sigmoid(x), GELU
from Erf, HardSwish in pieces…) up to the QuantizeLinear, where the table is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.clamps import clamp_of
from onnxq.graph.match import input_at, is_op
from onnxq.graph.qdq import constant_reals
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import downstream, output
from onnxq.lowering.handlers import Handler
from onnxq.lowering.integers import EIGHT_BIT, Codes, widens
from onnxq.lowering.ledger import Function, Work
from onnxq.numeric.activations import ACTIVATIONS, CLAMPS, JOINS, activation
from onnxq.numeric.tables import dequantized_codes, quantized

UNARY = tuple(op for op in ACTIVATIONS if op not in CLAMPS)
FUNCTIONS = ("Pow", *UNARY)  # tables: functions without their own handler


def lower_function(work: Work, node: gs.Node) -> None:
    """One more function of codes: a table if a QuantizeLinear follows, otherwise deferred. Raises RefusedError."""
    function = _evaluate(work, node)
    end = downstream.follow(work, node.outputs[0])
    codes = _bytes_wanted(work, end)
    if codes is None:
        work.functions[node.outputs[0]] = function
    else:
        _make_table(work, node, function, end, codes)


def or_function(arithmetic: Handler) -> Handler:
    """The handler of an operator that may be integer arithmetic, or a step of a function of one tensor's codes.

    It becomes a table if an operand is such a function and a QuantizeLinear follows, or if arithmetic refuses.
    Without a following QuantizeLinear, both forms are kept and the unused one is dropped at the end.
    """

    def lower(work: Work, node: gs.Node) -> None:
        try:
            function = _evaluate(work, node)
        except RefusedError:
            arithmetic(work, node)
            return
        result, end = node.outputs[0], downstream.follow(work, node.outputs[0])
        codes = _bytes_wanted(work, end)
        if codes is not None and any(t in work.functions for t in node.inputs):
            _make_table(work, node, function, end, codes)
            return
        try:
            arithmetic(work, node)
        except RefusedError as err:
            if codes is not None:
                _make_table(work, node, function, end, codes)
            else:
                work.functions[result] = function
                work.reasons[node] = err.refused.reason
        else:
            if codes is None:
                work.functions[end.tensor] = _behind(function, end)

    return lower


def _bytes_wanted(work: Work, end: downstream.End) -> Codes | None:
    """The 8-bit codes that every reader expects: tables have no others."""
    codes = downstream.wanted(work, end.tensor)
    return codes if codes is not None and codes.type in EIGHT_BIT else None


def _make_table(work: Work, node: gs.Node, function: Function, end: downstream.End, codes: Codes) -> None:
    made = output.planned(end, codes)
    nodes = [node, *made.nodes()]
    target = output.settle(work, made, [node])
    emit(work, _behind(function, end), codes.clipped(end.low, end.high), target, nodes)


def _behind(function: Function, end: downstream.End) -> Function:
    """The function composed with the activations after it."""
    return Function(function.source, np.clip(function.reals * end.factor, end.low, end.high))


def emit(work: Work, function: Function, codes: Codes, target: gs.Tensor, sources: list[gs.Node]) -> None:
    """The LookupTable of a function."""
    table = quantized(function.reals, codes.scale, codes.zero_point, codes.type, codes.qmin, codes.qmax)
    constant = work.constant(f"{target.name}_table", table)
    work.own("LookupTable", [function.source.tensor, constant], target, {}, sources)


def _evaluate(work: Work, node: gs.Node) -> Function:
    """The node's result as a function of codes. Raises RefusedError."""
    bounds = clamp_of(node)
    if bounds is not None or is_op(node, *UNARY):
        operand = _operand(work, node.inputs[0])
        if operand is None:
            raise RefusedError("its input is a constant")
        if bounds is not None:
            return Function(operand.source, np.clip(operand.reals, min(bounds), bounds[1]))
        return Function(operand.source, activation(node.op, _attributes(node))(operand.reals))
    if not is_op(node, *JOINS) or len(node.inputs) != 2:
        raise RefusedError("it is not a function of one quantized tensor")
    operands = [_operand(work, t) for t in node.inputs]
    sources = [o.source for o in operands if o is not None]
    if not sources:
        raise RefusedError("all its inputs are constant")
    if any(s.tensor is not sources[0].tensor for s in sources):
        raise RefusedError("it combines two tensors, one without a QuantizeLinear after the function that produces it")
    shape = sources[0].tensor.shape or ()
    values = [
        _uniform(t, shape) if o is None else o.reals for t, o in zip(node.inputs, operands, strict=True)
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return Function(sources[0], np.asarray(JOINS[node.op](*values), np.float64))


def _operand(work: Work, tensor: gs.Tensor) -> Function | None:
    """A tensor as a function of codes, or None if it is a constant."""
    function = work.functions.get(tensor)
    if function is not None:
        return function
    if tensor not in work.values and constant_reals(tensor) is not None:
        return None
    value = work.codes(tensor)
    return Function(value, dequantized_codes(float(value.scale), value.zero_point, value.type))


def _uniform(tensor: gs.Tensor, shape: Sequence[int | str | None]) -> Any:
    """The value shared by all elements of a constant. Raises RefusedError."""
    values = constant_reals(tensor)
    assert values is not None
    if values.size == 0 or not (values == values.flat[0]).all():
        raise RefusedError(f"its constant {tensor.name} is not a scalar")
    if widens(values.shape, shape):
        raise RefusedError(f"its constant {tensor.name} changes the shape of the result")
    return float(values.flat[0])


def _attributes(node: gs.Node) -> dict[str, Any]:
    """The attributes of an activation; PRelu's slope is that of LeakyRelu."""
    found = dict(node.attrs)
    slope = input_at(node, 1)
    if slope is not None:
        found["alpha"] = _uniform(slope, node.inputs[0].shape or ())
    return found
