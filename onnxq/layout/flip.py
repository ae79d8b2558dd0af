"""The result of a rule: how a node computes the same results, transposed, from transposed operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import Names, constant_values, input_at, is_constant, rank
from onnxq.graph.refusal import RefusedError
from onnxq.layout.perms import Perm, identity, inverse, or_none


@dataclass(frozen=True)
class Given:
    """The permutation requested for one operand, an input or an output of the node. kept: ids of graph outputs."""

    perm: Perm
    index: int
    output: bool
    kept: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Flip:
    """A change of a node to transposed operands.

    inputs, outputs: the permutation of each, None where unchanged. attrs: attributes with new values.
    constants: inputs with new values. replace: called after all of that, to substitute other nodes or to change the
    nodes that follow.
    """

    inputs: tuple[Perm | None, ...]
    outputs: tuple[Perm | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, NDArray] = field(default_factory=dict)
    replace: Callable[[gs.Graph, gs.Node, Names], None] | None = None


Rule = Callable[[gs.Node, Given], Flip]


def one_input(node: gs.Node, given: Given, index: int = 0) -> Perm:
    """The permutation that input `index` and every output share. Raises RefusedError for other inputs (parameters)."""
    if not given.output and given.index != index:
        raise RefusedError("it is a parameter of it")
    return given.perm


def alike(node: gs.Node, perm: Perm, inputs: Sequence[int] = (0,), **changes: Any) -> Flip:
    """One permutation for these inputs and every output; changes: further fields of the Flip."""
    wanted = tuple(perm if i in inputs else None for i in range(len(node.inputs)))
    return Flip(wanted, (perm,) * len(node.outputs), **changes)


def moved_axis(axis: int, perm: Perm) -> int:
    """Index of this dimension (negative: counted from the end) after the Transpose; −1 for the last."""
    found = inverse(perm)[axis % len(perm)]
    return -1 if found == len(perm) - 1 else found


def moved_axes(axes: Sequence[int], perm: Perm) -> list[int]:
    """Indices of these dimensions after the Transpose, non-negative and in the same order."""
    where = inverse(perm)
    return [where[axis % len(perm)] for axis in axes]


def integers(node: gs.Node, index: int, what: str) -> list[int] | None:
    """Values of an integer parameter, None if omitted. Raises RefusedError if it is computed at run time."""
    tensor = input_at(node, index)
    if tensor is None:
        return None
    values = constant_values(tensor)
    if values is None:
        raise RefusedError(f"its {what} are computed at run time")
    return [int(v) for v in values.reshape(-1)]


def known_rank(tensor: gs.Tensor) -> int:
    """Number of dimensions. Raises RefusedError if it is unknown."""
    found = rank(tensor)
    if found is None:
        raise RefusedError(f"the rank of {tensor.name} is unknown")
    return found


def ints(values: Sequence[int]) -> NDArray[np.int64]:
    """An int64 vector."""
    return np.asarray(values, np.int64)


def broadcast(node: gs.Node, given: Given, operands: Sequence[int]) -> Flip:
    """An elementwise operator with numpy broadcasting of its operands; the other inputs are parameters."""
    dims = max((known_rank(node.inputs[i]) for i in operands), default=0)
    perm = given.perm
    if not given.output:
        if given.index not in operands:
            raise RefusedError("it is a parameter of it")
        missing = dims - len(perm)
        perm = (*range(missing), *(p + missing for p in perm))
    if len(perm) != dims:
        raise RefusedError("the rank of its result is unknown")
    wanted: list[Perm | None] = [None] * len(node.inputs)
    constants = {}
    for i in operands:
        tensor = node.inputs[i]
        if is_constant(tensor):
            if int(np.prod(tensor.shape)) > 1:
                constants[i] = _transposed_operand(tensor, perm)
        else:
            wanted[i] = _operand_perm(tensor, perm)
    return Flip(tuple(wanted), (perm,) * len(node.outputs), constants=constants)


def _transposed_operand(tensor: gs.Constant, perm: Perm) -> NDArray:
    """The constant in the new order, with no more leading ones than before."""
    values = constant_values(tensor)
    assert values is not None
    full = values.reshape((1,) * (len(perm) - values.ndim) + values.shape).transpose(perm)
    while full.ndim > values.ndim and full.shape[0] == 1:
        full = full[0]
    return np.ascontiguousarray(full)


def _operand_perm(tensor: gs.Tensor, perm: Perm) -> Perm | None:
    own = known_rank(tensor)
    missing = len(perm) - own
    if all(d == 1 for d in tensor.shape):
        return perm if missing == 0 else None
    if perm[:missing] != identity(missing):
        raise RefusedError(f"its operand {tensor.name} has fewer dimensions")
    return or_none(tuple(p - missing for p in perm[missing:]))
