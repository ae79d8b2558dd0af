"""A graph as values: each computed tensor with its transposed copies, and the readers of each copy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxq.graph.match import is_channels_last, is_op, is_own, output_ids
from onnxq.graph.movement import breaks_before_movement
from onnxq.layout.perms import Perm, identity, inverse, permuted, reshape_target, then, to_last

# Fixed cost of a Transpose on top of the bytes it moves, in bytes: about 2 µs on one core. A Reshape moves nothing.
TRANSPOSE, RESHAPE = 4096, 512
# Cost factors: at a border; between com.onnxq operators, which should stay channels-last; and where onnxruntime would
# reject the model.
BORDER, INNER, FATAL = 2, 3, 1000


@dataclass(frozen=True)
class Reader:
    """An input of a node. layout: the node reads the value's root transposed by this.

    inner: there are com.onnxq operators both upstream and downstream of it.
    """

    node: gs.Node
    index: int
    layout: Perm
    inner: bool


@dataclass(frozen=True)
class Copy:
    """A tensor equal to the root transposed by `layout`; produced by the Transpose `node` (None for the root)."""

    tensor: gs.Variable
    layout: Perm
    node: gs.Node | None


@dataclass
class Value:
    """A computed tensor (or a graph input) and its copies by Transposes, the root first.

    maker: the node of this graph that produces the root, at output `slot`; None for inputs. pinned: copies that are
    graph outputs. fatal: a copy makes onnxruntime reject the model (movement.breaks_before_movement).
    """

    root: gs.Variable
    maker: gs.Node | None
    slot: int
    copies: list[Copy]
    readers: list[Reader] = field(default_factory=list)
    pinned: list[Copy] = field(default_factory=list)
    fatal: bool = False

    def wanted(self) -> set[Perm]:
        """Every layout that is read or is a graph output."""
        return {r.layout for r in self.readers} | {c.layout for c in self.pinned}

    def price(self, stored: Perm, wanted: Perm, inner: bool, count: bool) -> int:
        """Cost of one copy in layout `wanted` if the producer stores `stored`.

        inner: it has com.onnxq operators on both sides. count: ignore sizes.
        """
        if stored == wanted:
            return 0
        shape = self.root.shape
        weight = FATAL if self.fatal else INNER if inner else BORDER
        if shape is not None and reshape_target(then(inverse(stored), wanted), permuted(shape, stored)) is not None:
            return RESHAPE * weight
        return (TRANSPOSE + item_size(self.root) * (1 if count else self.elements() or 1)) * weight

    def elements(self) -> int | None:
        """Number of elements per sample (a first dimension of unknown size counts as one); None if unknown."""
        shape = self.root.shape
        if shape is None:
            return None
        sizes = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(shape)]
        return int(np.prod(sizes)) if all(isinstance(d, int) for d in sizes) else None


def item_size(tensor: gs.Tensor) -> int:
    """Bytes per element; 4 if the type is unknown."""
    if tensor.dtype is None:
        return 4
    kind = tensor.dtype
    return int((onnx.helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) else np.dtype(kind)).itemsize)


def perm_of(node: gs.Node) -> Perm | None:
    """The permutation of a Transpose or ChannelsLast of a computed tensor; None for other nodes or if unknown."""
    ours = is_channels_last(node)
    if not (ours or is_op(node, "Transpose")) or not isinstance(node.inputs[0], gs.Variable):
        return None
    if node.attrs.get("perm"):
        return tuple(int(p) for p in node.attrs["perm"])
    dims = [t.shape for t in (node.inputs[0], node.outputs[0]) if t.shape is not None]
    if not dims:
        return None
    return to_last(len(dims[0])) if ours else identity(len(dims[0]))[::-1]


def values_of(graph: gs.Graph) -> list[Value]:
    """Every value of the graph, in node order. Nodes of subgraphs count as readers."""
    own = {id(n) for n in graph.nodes}
    moves = {id(n): perm for n in graph.nodes if (perm := perm_of(n)) is not None}
    outputs = output_ids(graph)
    upstream, downstream = _ours_upstream(graph), _ours_downstream(graph)
    found = [_value(t, None, 0) for t in graph.inputs]
    found += [
        _value(t, n, slot) for n in graph.nodes if id(n) not in moves for slot, t in enumerate(n.outputs) if t.name
    ]
    for value in found:
        todo = list(value.copies)
        ours = value.maker is not None and id(value.maker) in upstream
        while todo:
            copy = todo.pop(0)
            if id(copy.tensor) in outputs:
                value.pinned.append(copy)
            for node in _distinct(copy.tensor.outputs):
                if id(node) in moves and id(node) in own:
                    todo.append(Copy(node.outputs[0], then(copy.layout, moves[id(node)]), node))
                    value.copies.append(todo[-1])
                else:
                    value.readers += [
                        Reader(node, i, copy.layout, ours and id(node) in downstream)
                        for i, t in enumerate(node.inputs)
                        if t is copy.tensor
                    ]
        value.fatal = breaks_before_movement(value.maker)
    return found


def _value(tensor: gs.Variable, maker: gs.Node | None, slot: int) -> Value:
    """A value with only its root. If its rank is unknown, that of its Transposes is used, or else the layout ()."""
    perms = (perm_of(n) for n in tensor.outputs)
    rank = len(tensor.shape) if tensor.shape is not None else next((len(p) for p in perms if p is not None), 0)
    return Value(tensor, maker, slot, [Copy(tensor, identity(rank), None)])


def _distinct(nodes: Iterable[gs.Node]) -> list[gs.Node]:
    return list({id(n): n for n in nodes}.values())


def _computes(node: gs.Node) -> bool:
    return is_own(node) and not is_channels_last(node)


def _ours_upstream(graph: gs.Graph) -> set[int]:
    """ids of the nodes that are com.onnxq operators or depend on one. The graph is sorted."""
    found: set[int] = set()
    for node in graph.nodes:
        if _computes(node) or any(id(p) in found for t in node.inputs for p in t.inputs):
            found.add(id(node))
    return found


def _ours_downstream(graph: gs.Graph) -> set[int]:
    """ids of the nodes that are com.onnxq operators or that one depends on."""
    found: set[int] = set()
    for node in reversed(graph.nodes):
        if _computes(node) or any(id(n) in found for t in node.outputs for n in t.outputs):
            found.add(id(node))
    return found
