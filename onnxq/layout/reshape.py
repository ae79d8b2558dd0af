"""Moving Transposes through nodes that split and merge dimensions: Reshape, Flatten, Squeeze, Unsqueeze.

A Reshape pairs groups of adjacent input dimensions with groups of output dimensions that cover the same elements
([N, C, H, W] → [N, C, HW]: N with N, C with C, H and W with HW). A Transpose moves through it if it keeps each group
together and in order; the output groups are then permuted likewise. Dimensions of size 1 never prevent it.

Where a Reshape or Flatten to [N, K] merges dimensions that the Transpose separates, and only matrix products with
constant weights read the result, the rows of those weights are permuted instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph import marks
from onnxq.graph.marks import Flattened
from onnxq.graph.match import Names, constant_values, consumers, is_op
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.refusal import RefusedError
from onnxq.layout.flip import Flip, Given, integers, ints, known_rank, moved_axes, one_input
from onnxq.layout.perms import Perm, is_identity, or_none, permuted, without
from onnxq.operators import OPERATORS
from onnxq.operators.base.layouts import Elementwise, WeightRows

Dims = list[int | str | None]  # None: nothing is known


@dataclass(frozen=True)
class Group:
    """Adjacent input dimensions of a Reshape, and the output dimensions that cover the same elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def groups(before: Dims, after: Dims) -> list[Group]:
    """The pairing of input and output dimensions, each in one group. A symbolic size only equals itself.

    Raises RefusedError if too few sizes are known to pair them.
    """
    found: list[Group] = []
    i = j = 0
    while i < len(before) and j < len(after):
        start = i, j
        if before[i] is not None and before[i] == after[j]:
            i, j = i + 1, j + 1
        else:
            a, b, i, j = _number(before[i]), _number(after[j]), i + 1, j + 1
            while a != b:
                if a < b and i < len(before):
                    a, i = a * _number(before[i]), i + 1
                elif b < a and j < len(after):
                    b, j = b * _number(after[j]), j + 1
                else:
                    raise RefusedError("its shapes do not match")
        found.append(Group(tuple(range(start[0], i)), tuple(range(start[1], j))))
    rest = Group(tuple(range(i, len(before))), tuple(range(j, len(after))))
    if any(before[k] != 1 for k in rest.before) or any(after[k] != 1 for k in rest.after):
        raise RefusedError("too little is known about its shapes")
    last = found[-1] if found else Group((), ())
    return [*found[:-1], Group((*last.before, *rest.before), (*last.after, *rest.after))]


def _dims(tensor: gs.Tensor) -> Dims:
    """The shape; every dimension without a size or a name gets a unique name."""
    known_rank(tensor)
    return [
        d if (isinstance(d, int) and d >= 0) or (isinstance(d, str) and d) else f"?{i}"
        for i, d in enumerate(tensor.shape)
    ]


def _number(size: int | str | None) -> int:
    if not isinstance(size, int):
        raise RefusedError("too little is known about its shapes")
    return size


def through(given: Perm, here: list[tuple[int, ...]], there: list[tuple[int, ...]], shape: Dims) -> Perm:
    """The permutation on the other side of a Reshape. here, there: dimensions of each group on this and the other side.

    shape: on this side. Raises RefusedError if the permutation separates a group.
    """
    owner = {axis: k for k, group in enumerate(here) for axis in group}
    order: list[int] = []
    seen: dict[int, list[int]] = {}
    for axis in given:
        if shape[axis] == 1:
            continue
        group = owner[axis]
        if group in seen and order[-1] != group:
            raise RefusedError("it merges dimensions that the Transpose separates")
        if group not in seen:
            order.append(group)
        seen.setdefault(group, []).append(axis)
    if any(axes != sorted(axes) for axes in seen.values()):
        raise RefusedError("it merges dimensions that the Transpose separates")
    for group in [owner[axis] for axis in given]:  # groups of ones follow the group before them
        if group not in order:
            before = [k for k in order if k < group]
            order.insert(order.index(max(before)) + 1 if before else 0, group)
    return tuple(axis for group in order for axis in there[group])


def reshape(node: gs.Node, given: Given) -> Flip:
    """Reshape with a constant target."""
    perm = one_input(node, given)
    target = integers(node, 1, "target shape")
    if target is None or (0 in target and node.attrs.get("allowzero", 0)):
        raise RefusedError("its target shape contains a literal zero")
    before = _dims(node.inputs[0])
    after = _target_dims(before, target)
    pairs = groups(before, after)
    mine, theirs = [g.before for g in pairs], [g.after for g in pairs]
    if given.output:
        inner, outer = through(perm, theirs, mine, after), perm
    else:
        try:
            inner, outer = perm, through(perm, mine, theirs, before)
        except RefusedError:
            flip = _into_weights(node, given, after)
            if flip is None:
                raise
            return flip
    changes, copies = {}, {}
    if not is_identity(outer) or 0 in target:
        changes[1] = ints(_new_target(permuted(before, inner), permuted(after, outer)))
        copies = {"allowzero": 0} if node.attrs.get("allowzero", 0) else {}
    return Flip((or_none(inner), *[None] * (len(node.inputs) - 1)), (or_none(outer),), copies, changes)


def _target_dims(before: Dims, target: list[int]) -> Dims:
    """Dimensions of the result; copied dimensions have the name of the input dimension."""
    after: Dims = [before[i] if t == 0 else t for i, t in enumerate(target)]
    if -1 in target:
        at = target.index(-1)
        rest = after[:at] + after[at + 1 :]
        unknown = [d for d in before if not isinstance(d, int) and d not in rest]
        ahead, behind = (int(np.prod([d for d in dims if isinstance(d, int)])) for dims in (before, rest))
        after[at] = None
        if not unknown and behind and ahead % behind == 0:
            after[at] = ahead // behind
        elif len(unknown) == 1 and ahead == behind:
            after[at] = unknown[0]
    return after


def _new_target(before: Dims, after: Dims) -> list[int]:
    found = []
    for i, size in enumerate(after):
        if isinstance(size, int):
            found.append(size)
        else:
            found.append(0 if size is not None and i < len(before) and before[i] == size else -1)
    if found.count(-1) > 1:
        raise RefusedError("too little is known about its shapes")
    return found


def flatten(node: gs.Node, given: Given) -> Flip:
    """Flatten to two dimensions."""
    if given.output:
        raise RefusedError("it merges dimensions")
    perm = one_input(node, given)
    shape, at = _dims(node.inputs[0]), int(node.attrs.get("axis", 1))
    at = at + len(perm) if at < 0 else at
    if sorted(perm[:at]) != list(range(at)):
        raise RefusedError("it merges dimensions that the Transpose separates")
    halves = [tuple(range(at)), tuple(range(at, len(perm)))]
    try:
        for half in halves:
            through(tuple(a for a in perm if a in half), [half], [(0,)], shape)
    except RefusedError:
        flip = _into_weights(node, given, [shape[0], *_joined(shape)]) if at == 1 else None
        if flip is None:
            raise
        return flip
    return Flip((perm,), (None,))


def _joined(shape: Dims) -> Dims:
    sizes = [d for d in shape[1:] if isinstance(d, int)]
    return [int(np.prod(sizes)) if len(sizes) == len(shape) - 1 else None]


def squeeze(node: gs.Node, given: Given) -> Flip:
    """Squeeze; given the permutation of the output, removed dimensions are placed next to their neighbours."""
    axes = integers(node, 1, "axes")
    dims = known_rank(node.inputs[0])
    if axes is None:
        shape = node.inputs[0].shape
        if not all(isinstance(d, int) for d in shape):
            raise RefusedError("its shape is unknown")
        axes = [i for i, d in enumerate(shape) if d == 1]
    gone = {a % dims for a in axes}
    if given.output:
        outer = given.perm
        perm = _with(outer, gone, dims)
    else:
        perm = one_input(node, given)
        outer = without(perm, gone)
    parameter = {1: ints(sorted(moved_axes(sorted(gone), perm)))}
    return Flip((or_none(perm), *[None] * (len(node.inputs) - 1)), (or_none(outer),), constants=parameter)


def unsqueeze(node: gs.Node, given: Given) -> Flip:
    """Unsqueeze; given the permutation of the input, new dimensions are placed next to their neighbours."""
    axes = integers(node, 1, "axes")
    assert axes is not None
    dims = len(given.perm) if given.output else len(given.perm) + len(axes)
    new = {a % dims for a in axes}
    if given.output:
        outer = given.perm
        perm = without(outer, new)
    else:
        perm = one_input(node, given)
        outer = _with(perm, new, dims)
    parameter = {1: ints(sorted(moved_axes(sorted(new), outer)))}
    return Flip((or_none(perm), None), (or_none(outer),), constants=parameter)


def _with(perm: Perm, ones: set[int], dims: int) -> Perm:
    """The permutation with dimensions of size 1 inserted: each before its successor, or else after the last."""
    kept = [axis for axis in range(dims) if axis not in ones]
    order = [kept[p] for p in perm]
    for axis in sorted(ones, reverse=True):
        order.insert(order.index(axis + 1) if axis + 1 in order else _behind(order, axis), axis)
    return tuple(order)


def _behind(order: list[int], axis: int) -> int:
    lower = [a for a in order if a < axis]
    return order.index(max(lower)) + 1 if lower else len(order)


def _into_weights(node: gs.Node, given: Given, after: Dims) -> Flip | None:
    """[N, C, H, W] → [N, CHW] → products with constant weights: permute their rows."""
    perm, shape = given.perm, _dims(node.inputs[0])
    joined = _joined(shape)[0]
    if perm[0] != 0 or len(after) != 2 or not isinstance(joined, int) or after[1] != joined or after[0] != shape[0]:
        return None
    chain = _readers(node)
    if chain is None or any(id(n.outputs[0]) in given.kept or marks.FLATTENED.on(n) for n, _ in chain):
        return None
    inner = tuple(p - 1 for p in perm[1:])
    sizes = [d for d in shape[1:] if isinstance(d, int)]
    rows = np.arange(joined).reshape(sizes).transpose(inner).reshape(-1)
    note = Flattened(tuple(sizes), inner)
    return Flip(
        (perm, *[None] * (len(node.inputs) - 1)), (None,), replace=lambda g, n, names: _permute(n, rows, note, names)
    )


def _readers(node: gs.Node) -> list[tuple[gs.Node, list[gs.Node]]] | None:
    """[(node, products)]: from the Flatten through elementwise operators to matrix products.

    None if anything else reads a tensor on the way.
    """
    chain: list[tuple[gs.Node, list[gs.Node]]] = []
    while True:
        result = node.outputs[0]
        readers = consumers(result)
        products = [n for n in readers if _product(n, result)]
        chain.append((node, products))
        others = [n for n in readers if all(n is not p for p in products)]
        if not readers or len(others) > 1:
            return None
        if not others:
            return chain
        if not _elementwise(others[0], result):
            return None
        node = others[0]


def _product(node: gs.Node, tensor: gs.Tensor) -> bool:
    found = _weights(node)
    if found is None:
        return False
    data, weights = found
    others = [t for i, t in enumerate(node.inputs) if i != data]
    known = node.inputs[data] is tensor and isinstance(node.inputs[weights], gs.Constant)
    return known and all(t is not tensor for t in others)


def _weights(node: gs.Node) -> tuple[int, int] | None:
    """Input indices of data and weight of a product whose weight rows can be permuted; None for other nodes."""
    spec = OPERATORS.get(node.op) if node.domain == OWN_DOMAIN else None
    if spec is None or not isinstance(spec.layout, WeightRows):
        return None
    data, weights = spec.schema.places([spec.layout.data, spec.layout.weights])
    return data, weights


def _elementwise(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether each element of the result depends only on the element at its position, by the same function."""
    if is_op(node, "Relu", "Identity"):
        return True
    spec = OPERATORS.get(node.op) if node.domain == OWN_DOMAIN else None
    if spec is None or not isinstance(spec.layout, Elementwise):
        return False
    operands, vectors = spec.schema.places(spec.layout.operands), spec.schema.places(spec.layout.vectors)
    return (
        len(operands) == 1
        and node.inputs[operands[0]] is tensor
        and all(tuple(node.inputs[i].shape or ()) == (1,) for i in vectors)
    )


def _permute(node: gs.Node, rows: NDArray, note: Flattened, names: Names) -> None:
    chain = _readers(node)
    assert chain is not None
    for link, products in chain:
        marks.FLATTENED.set(link, note)
        for product in products:
            found = _weights(product)
            assert found is not None
            old = product.inputs[found[1]]
            weight = constant_values(old)
            assert weight is not None
            product.inputs[found[1]] = gs.Constant(names.fresh(f"{old.name}_rows"), weight[rows])
