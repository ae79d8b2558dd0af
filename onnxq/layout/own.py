"""Moving Transposes through the operators of domain com.onnxq.

Convolutions and pools are channels-last always and matrix products have their own order: no rule, they hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.layout.flip import (
    Flip,
    Given,
    Refusal,
    Rule,
    alike,
    broadcast,
    known_rank,
    moved_axes,
    moved_axis,
    one_input,
)
from onnxq.layout.perms import or_none, without

CONCATS = tuple(f"Concat{n}" for n in range(2, 9))


def _sum(node: gs.Node, given: Given) -> Flip:
    flip = broadcast(node, given, (0, 1))
    perm = flip.outputs[0]
    assert perm is not None
    return Flip(flip.inputs, flip.outputs, _vector_axis(node, (2, 3, 4), perm), flip.constants)


def _product(node: gs.Node, given: Given) -> Flip:
    return broadcast(node, given, (0, 1))


def _vector_axis(node: gs.Node, parameters: Sequence[int], perm: tuple[int, ...]) -> dict[str, Any]:
    """The attribute axis, where a parameter has a value for each channel."""
    if all(tuple(node.inputs[i].shape or ()) == (1,) for i in parameters):
        return {}
    return {"axis": moved_axis(int(node.attrs.get("axis", -1)), perm)}


def _requantize(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    return alike(node, perm, attrs=_vector_axis(node, (1, 2), perm))


def _table(node: gs.Node, given: Given) -> Flip:
    return alike(node, one_input(node, given))


def _softmax(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    return alike(node, perm, attrs={"axis": moved_axis(int(node.attrs.get("axis", -1)), perm)})


def _concat(node: gs.Node, given: Given) -> Flip:
    if not given.output and given.index < 2:
        raise Refusal("it is a parameter of it")
    operands = range(2, len(node.inputs))
    if any(known_rank(node.inputs[i]) != len(given.perm) for i in operands):
        raise Refusal("the numbers of dimensions of its inputs differ")
    flip = broadcast(node, Given(given.perm, 0, True), operands)
    return Flip(flip.inputs, flip.outputs, {"axis": moved_axis(int(node.attrs["axis"]), given.perm)}, flip.constants)


def _mean(node: gs.Node, given: Given) -> Flip:
    keep = bool(node.attrs.get("keepdims", 1))
    if given.output and not keep:
        raise Refusal("it takes dimensions away")
    perm = one_input(node, given)
    axes = sorted(moved_axes(node.attrs["axes"], perm))
    if axes[-1] - axes[0] != len(axes) - 1:
        raise Refusal("the dimensions that it averages would lie apart")
    left = perm if keep else or_none(without(perm, {a % len(perm) for a in node.attrs["axes"]}))
    return Flip((perm, *[None] * (len(node.inputs) - 1)), (left,), {"axes": axes})


def _layer_norm(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    if perm[-1] != len(perm) - 1:
        raise Refusal("it normalizes the last dimension")
    return alike(node, perm)


RULES: dict[str, Rule] = {
    "Add": _sum,
    "LayerNorm": _layer_norm,
    "LookupTable": _table,
    "Mul": _product,
    "ReduceMean": _mean,
    "Requantize": _requantize,
    "Softmax": _softmax,
    "Sub": _sum,
    **dict.fromkeys(CONCATS, _concat),
}
