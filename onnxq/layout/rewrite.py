"""Applies a choice: rewrites nodes, stores each value in one order, with one Transpose per other order needed."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph import marks
from onnxq.graph.match import CHANNELS_LAST, Names, editing, is_channels_last, is_own, remove_nodes
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.layout.choice import Choice, Layouts, made_in, read_in
from onnxq.layout.copies import Copy, Value
from onnxq.layout.perms import Perm, inverse, is_identity, moves_nothing, permuted, reshape_target, then, to_last


def carry_out(graph: gs.Graph, layouts: Layouts, choice: Choice, names: Names) -> int:
    """Transpose the chosen nodes and remove every unneeded Transpose; returns the number of changes."""
    changed = len(choice)
    for node, flip in choice.values():
        node.attrs.update(flip.attrs)
        for index, values in flip.constants.items():
            while len(node.inputs) <= index:
                node.inputs.append(gs.Variable.empty())
            base = node.inputs[index].name or f"{node.name}_parameter"
            node.inputs[index] = gs.Constant(names.fresh(base), values)
        if (perm := next((p for p in flip.outputs if p is not None), None)) is not None:
            note_layout(node, perm)
    with editing(graph):
        for value in layouts.values:
            stored, wanted = made_in(value, choice, choice), read_in(value, choice, choice)
            if stored != value.copies[0].layout or wanted != [r.layout for r in value.readers] or not _is_tidy(value):
                changed += _settle(graph, value, stored, wanted, names)
        for node, flip in choice.values():
            if flip.replace is not None:
                flip.replace(graph, node, names)
    return changed


def note_layout(node: gs.Node, perm: Perm) -> None:
    """Record in the node's metadata that its results are now transposed (again)."""
    before = marks.LAYOUT.get(node)
    total = perm if before is None else then(before, perm)
    marks.LAYOUT.drop(node)
    if not is_identity(total):
        marks.LAYOUT.set(node, total)


def _is_tidy(value: Value) -> bool:
    """Whether every Transpose reads the root, moves something, is used, and is the only one for its layout."""
    read = {r.layout for r in value.readers}
    pinned = {id(c.tensor) for c in value.pinned}
    seen = {value.copies[0].layout}
    for copy in value.copies[1:]:
        if copy.node is None or copy.node.inputs[0] is not value.root:
            return False
        if id(copy.tensor) in pinned:
            seen.add(copy.layout)
        elif copy.layout in seen or copy.layout not in read:
            return False
        seen.add(copy.layout)
    return True


def _settle(graph: gs.Graph, value: Value, stored: Perm, wanted: list[Perm], names: Names) -> int:
    """Give the value its one stored tensor and the copies needed; returns how many Transposes were removed."""
    before = sum(c.node is not None for c in value.copies)
    kept = _stored(value, stored, wanted, names)
    holders: dict[Perm, gs.Variable] = {stored: kept}
    used: set[int] = set()
    pinned = [c for c in value.pinned if c.tensor is not kept]
    loose = [c for c in value.copies[1:] if c.tensor is not kept and all(c is not p for p in value.pinned)]
    readable = {*wanted}
    for copy in (*pinned, *loose):
        is_pinned = any(copy is p for p in pinned)
        if not is_pinned and (copy.layout in holders or copy.layout not in readable):
            continue
        used.add(id(_copy_node(graph, copy, kept, then(inverse(stored), copy.layout), names)))
        holders.setdefault(copy.layout, copy.tensor)
    for layout in wanted:
        if layout not in holders:
            perm = then(inverse(stored), layout)
            shape = None if kept.shape is None else permuted(kept.shape, perm)
            tensor = gs.Variable(names.fresh(f"{kept.name}_transposed"), kept.dtype, shape)
            used.add(id(_copy_node(graph, Copy(tensor, layout, None), kept, perm, names)))
            holders[layout] = tensor
    for reader, layout in zip(value.readers, wanted, strict=True):
        reader.node.inputs[reader.index] = holders[layout]
    gone = [c.node for c in value.copies if c.node is not None and id(c.node) not in used]
    remove_nodes(graph, gone)
    return max(before - len(used), 0)


def _stored(value: Value, stored: Perm, wanted: list[Perm], names: Names) -> gs.Variable:
    """The tensor that the producer now produces, in layout `stored`."""
    root = value.root
    if stored == value.copies[0].layout:
        return root
    assert value.maker is not None
    tensor = next((c.tensor for c in value.pinned if c.layout == stored), None)
    shape = None if root.shape is None else permuted(root.shape, stored)
    if tensor is not None and _hides_reshape(value, stored, wanted, tensor):
        tensor = None
    if tensor is None and any(c.tensor is root for c in value.pinned):
        tensor = gs.Variable(names.fresh(f"{root.name}_transposed"), root.dtype, shape)
    if tensor is None:
        root.shape = shape
        return root
    tensor.inputs.clear()
    value.maker.outputs[value.slot] = tensor
    return tensor


def _hides_reshape(value: Value, stored: Perm, wanted: list[Perm], output: gs.Variable) -> bool:
    """Whether a copy that moves nothing could no longer be recognized if the producer produced this graph output.

    Graph outputs keep their declared shape, which may be less specific than the root's.
    """
    shape = value.root.shape
    if shape is None:
        return False
    others = ({*wanted} | {c.layout for c in value.pinned}) - {stored}
    perms = [then(inverse(stored), layout) for layout in others]
    return any(
        reshape_target(perm, permuted(shape, stored)) is not None and reshape_target(perm, output.shape) is None
        for perm in perms
    )


def _copy_node(graph: gs.Graph, copy: Copy, source: gs.Variable, perm: Perm, names: Names) -> gs.Node:
    """The node that produces a copy: the existing one, or a new one."""
    node = copy.node
    if node is None:
        node = gs.Node("", names.fresh(f"{copy.tensor.name}_transpose"), {}, [source], [copy.tensor])
        graph.nodes.append(node)
    node.inputs[0] = source
    node.domain = None  # it may have been ChannelsLast
    node.op, node.attrs = ("Identity", {}) if is_identity(perm) else ("Transpose", {"perm": list(perm)})
    return node


def name_by_layer(layouts: Layouts, names: Names) -> None:
    """Make the operator itself produce the tensor with the name, and the Transposes after it a copy.

    Lowering records in metadata which tensor of the QDQ model an operator computes. Verification, which compares by
    name, then compares the tensor that the next operator reads.
    """
    for value in layouts.values:
        node = value.maker
        meant = marks.STANDS_FOR.get(node)
        copy = next((c for c in value.copies[1:] if c.tensor.name == meant), None)
        if node is None or copy is None or any(c is copy or c.tensor is value.root for c in value.pinned):
            continue
        names.taken.discard(value.root.name)
        value.root.name = copy.tensor.name
        copy.tensor.name = names.fresh(f"{copy.tensor.name}_transposed")
        note_layout(node, inverse(copy.layout))


def reshape_instead(graph: gs.Graph, layouts: Layouts, names: Names) -> int:
    """Replace every Transpose that moves only dimensions of size 1 with a Reshape; returns how many."""
    changed = 0
    for value in layouts.values:
        for copy in value.copies[1:]:
            target = reshape_target(copy.layout, value.root.shape)
            if target is None or copy.node is None or copy.node.inputs[0] is not value.root:
                continue
            constant = gs.Constant(names.fresh(f"{copy.tensor.name}_shape"), np.asarray(target, np.int64))
            copy.node.op, copy.node.domain, copy.node.attrs = "Reshape", None, {}
            copy.node.inputs.append(constant)
            changed += 1
    return changed


def channels_last_instead(layouts: Layouts) -> int:
    """Replace Transposes of 8-bit tensors to channels-last with ChannelsLast, which has a kernel, where a com.onnxq
    operator reads the result and anything moves; returns how many."""
    changed = 0
    for value in layouts.values:
        kind = value.root.dtype
        if kind is None or isinstance(kind, int) or np.dtype(kind) not in (np.uint8, np.int8):
            continue
        ours = {r.layout for r in value.readers if is_own(r.node)}
        for copy in value.copies[1:]:
            if copy.node is None or is_channels_last(copy.node) or copy.layout not in ours or len(copy.layout) < 3:
                continue
            if copy.layout == to_last(len(copy.layout)) and not moves_nothing(copy.layout, value.root.shape):
                copy.node.op, copy.node.domain, copy.node.attrs = CHANNELS_LAST, OWN_DOMAIN, {}
                changed += 1
    return changed
