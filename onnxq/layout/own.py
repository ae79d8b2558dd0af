"""Moving Transposes through the operators of domain com.onnxq, as onnxq.operators describes them.

Operators without a rule have a fixed dimension order: convolutions and pools are always channels-last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.graph.refusal import RefusedError
from onnxq.layout.flip import (
    Flip,
    Given,
    Rule,
    alike,
    broadcast,
    known_rank,
    moved_axes,
    moved_axis,
    one_input,
)
from onnxq.layout.perms import or_none, without
from onnxq.operators import OPERATORS, Schema
from onnxq.operators.base.layouts import AlongAxis, Elementwise, Joined, LastAxis, Reduction


def _elementwise(schema: Schema, layout: Elementwise, node: gs.Node, given: Given) -> Flip:
    operands = schema.places(layout.operands)
    if len(operands) > 1:
        flip = broadcast(node, given, operands)
    else:
        flip = alike(node, one_input(node, given, *operands), operands)
    if all(tuple(node.inputs[i].shape or ()) == (1,) for i in schema.places(layout.vectors)):
        return flip
    perm = flip.outputs[0]
    assert perm is not None
    return dataclasses.replace(flip, attrs=_axis(schema, layout.axis, node, perm))


def _along_axis(schema: Schema, layout: AlongAxis, node: gs.Node, given: Given) -> Flip:
    operands = schema.places([layout.operand])
    perm = one_input(node, given, *operands)
    return alike(node, perm, operands, attrs=_axis(schema, layout.axis, node, perm))


def _joined(schema: Schema, layout: Joined, node: gs.Node, given: Given) -> Flip:
    operands = schema.places(layout.operands)
    if not given.output and given.index not in operands:
        raise RefusedError("it is a parameter of it")
    if any(known_rank(node.inputs[i]) != len(given.perm) for i in operands):
        raise RefusedError("the ranks of its inputs differ")
    flip = broadcast(node, Given(given.perm, operands[0], True), operands)
    return dataclasses.replace(flip, attrs=_axis(schema, layout.axis, node, given.perm))


def _reduction(schema: Schema, layout: Reduction, node: gs.Node, given: Given) -> Flip:
    keep = bool(_value(schema, layout.keepdims, node))
    if given.output and not keep:
        raise RefusedError("it removes dimensions")
    operands = schema.places([layout.operand])
    perm = one_input(node, given, *operands)
    reduced = _value(schema, layout.axes, node)
    axes = sorted(moved_axes(reduced, perm))
    if axes[-1] - axes[0] != len(axes) - 1:
        raise RefusedError("the dimensions that it averages would not be adjacent")
    left = perm if keep else or_none(without(perm, {a % len(perm) for a in reduced}))
    return dataclasses.replace(alike(node, perm, operands), outputs=(left,), attrs={layout.axes: axes})


def _last_axis(schema: Schema, layout: LastAxis, node: gs.Node, given: Given) -> Flip:
    operands = schema.places([layout.operand])
    perm = one_input(node, given, *operands)
    if perm[-1] != len(perm) - 1:
        raise RefusedError("it normalizes the last dimension")
    return alike(node, perm, operands)


def _axis(schema: Schema, name: str, node: gs.Node, perm: Sequence[int]) -> dict[str, Any]:
    return {name: moved_axis(int(_value(schema, name, node)), tuple(perm))}


def _value(schema: Schema, name: str, node: gs.Node) -> Any:
    return node.attrs[name] if name in node.attrs else schema.defaults[name]


KINDS: dict[type, Callable[[Schema, Any, gs.Node, Given], Flip]] = {
    Elementwise: _elementwise,
    AlongAxis: _along_axis,
    Joined: _joined,
    Reduction: _reduction,
    LastAxis: _last_axis,
}
RULES: dict[str, Rule] = {
    name: partial(KINDS[type(spec.layout)], spec.schema, spec.layout)
    for name, spec in OPERATORS.items()
    if type(spec.layout) in KINDS
}
