"""Inspecting a graph safely: fan-out, graph outputs and subgraph captures are checked before anything is rewritten.

onnx-graphsurgeon compares tensors by name and nodes by content; here identity is used throughout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.identity import IdentitySet
from onnxq.graph.model import ExternalValues
from onnxq.graph.names import fresh_name
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.refusal import Refused
from onnxq.graph.walk import all_graphs

STANDARD_DOMAINS = (None, "", "ai.onnx")
CHANNELS_LAST = "ChannelsLast"  # com.onnxq's own Transpose
ONLY_SHAPE = ("Shape", "Size")  # operators that do not read their input's values


@dataclass(frozen=True)
class MatchFailure:
    """Why a rewrite was not done, and at which node."""

    reason: str
    node: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def is_own(node: gs.Node | None) -> bool:
    """Whether the node is an operator of domain com.onnxq."""
    return node is not None and node.domain == OWN_DOMAIN


def is_channels_last(node: gs.Node | None) -> bool:
    """Whether the node is com.onnxq's own Transpose."""
    return node is not None and is_own(node) and node.op == CHANNELS_LAST


def is_op(node: gs.Node, *ops: str) -> bool:
    """Whether the node is one of these operators of the standard ONNX domain."""
    return node.op in ops and node.domain in STANDARD_DOMAINS


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that produces the tensor; None for constants and graph inputs."""
    return tensor.inputs[0] if tensor.inputs else None


def consumers(tensor: gs.Tensor) -> list[gs.Node]:
    """Distinct nodes that read the tensor, also inside subgraphs, in order."""
    return list({id(n): n for n in tensor.outputs}.values())


def output_ids(graph: gs.Graph) -> set[int]:
    """ids of the tensors that are outputs of the graph or of any subgraph in it."""
    return {id(t) for g in all_graphs(graph) for t in g.outputs}


def sole_consumer(tensor: gs.Tensor, outputs: Set[int] = frozenset()) -> gs.Node | None:
    """The only node that reads the tensor, or None if there are several, none, or it is a graph output.

    outputs: output_ids(graph); empty if the caller checks outputs itself.
    """
    found = consumers(tensor)
    return found[0] if len(found) == 1 and id(tensor) not in outputs else None


def also_read(tensor: gs.Tensor, reader: gs.Node, maker: gs.Node, outputs: Set[int]) -> Refused | None:
    """Why `tensor` cannot be rewritten for `reader`: something else reads it too. None if nothing does.

    maker: the node to name as its producer. outputs: output_ids(graph).
    """
    if sole_consumer(tensor, outputs) is reader:
        return None
    other = next((n.name for n in consumers(tensor) if n is not reader), None)
    return Refused(f"the output of {maker.name} is also {'a graph output' if other is None else f'read by {other}'}")


def is_constant(tensor: gs.Tensor) -> bool:
    """Whether the tensor's values are known."""
    return isinstance(tensor, gs.Constant)


def belongs(graph: gs.Graph, node: gs.Node) -> bool:
    """Whether the node is directly in this graph: not outside, and not in a subgraph."""
    edits = graph.__dict__.get("edits")
    if edits is not None and node in edits.present:
        return True
    return any(n is node for n in graph.nodes)


def constant_values(tensor: gs.Tensor) -> NDArray | None:
    """The tensor's values, or None if it is computed at run time. Do not edit them in place: they may be shared."""
    if not isinstance(tensor, gs.Constant):
        return None
    # tensor.values would cache what it loads; a model over 2 GB keeps its weights in their file
    return tensor._values.load() if isinstance(tensor._values, ExternalValues) else tensor.values


def scalar_value(tensor: gs.Tensor) -> float | None:
    """The value of a one-element constant, else None."""
    values = constant_values(tensor)
    return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None


def input_at(node: gs.Node, index: int) -> gs.Tensor | None:
    """The node's input at this position, or None if it is omitted (absent or empty name)."""
    if index >= len(node.inputs) or node.inputs[index].is_empty():
        return None
    return node.inputs[index]


def is_tensor(value: gs.Tensor) -> bool:
    """Whether a value is a tensor as far as known. The dtype of a sequence or an optional is that of its elements."""
    return getattr(value, "type", None) in (None, "tensor_type")


def is_float(tensor: gs.Tensor) -> bool:
    """Whether the tensor is known to hold float32 values."""
    known = tensor.dtype is not None and not isinstance(tensor.dtype, int) and is_tensor(tensor)
    return known and np.dtype(tensor.dtype) == np.float32


def further_outputs(node: gs.Node, outputs: Set[int]) -> list[gs.Tensor]:
    """The node's outputs after the first that something needs: a node reads them, or they are graph outputs.

    outputs: output_ids(graph).
    """
    return [t for t in node.outputs[1:] if not t.is_empty() and (t.outputs or id(t) in outputs)]


def rank(tensor: gs.Tensor) -> int | None:
    """Number of dimensions if known."""
    return None if tensor.shape is None else len(tensor.shape)


def broadcasts_into(shape: Sequence[int], tensor: gs.Tensor) -> bool:
    """Whether an elementwise operator with an operand of this shape is known to preserve the tensor's shape."""
    if tensor.shape is None:
        return len(shape) == 0
    if len(shape) > len(tensor.shape):
        return False
    own = list(tensor.shape)[len(tensor.shape) - len(shape) :]
    return all(a == 1 or (isinstance(b, int) and a == b) for a, b in zip(shape, own, strict=True))


class Names:
    """Fresh names for tensors and nodes of a graph and its subgraphs."""

    def __init__(self, graph: gs.Graph) -> None:
        self.taken: set[str] = set()
        for g in all_graphs(graph):
            self.taken.update(g.tensors().keys())
            self.taken.update(n.name for n in g.nodes)
            self.taken.update(t.name for t in (*g.inputs, *g.outputs))

    def fresh(self, base: str) -> str:
        """`base` itself if free, else base_1, base_2, …; taken from then on."""
        return fresh_name(base, self.taken)


def replace_input(node: gs.Node, old: gs.Tensor, new: gs.Tensor) -> int:
    """Make `node` read `new` wherever it read `old`; returns how many inputs changed."""
    changed = 0
    for i, tensor in enumerate(node.inputs):
        if tensor is old:
            node.inputs[i] = new
            changed += 1
    return changed


def replace_everywhere(graph: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """Make every consumer of `old`, in subgraphs too, read `new` instead. Graph outputs are unchanged."""
    for node in consumers(old):
        replace_input(node, old, new)


def remove_nodes(graph: gs.Graph, dead: Iterable[gs.Node]) -> None:
    """Remove nodes from the graph (top level or the given subgraph) and unlink their tensors."""
    edits = graph.__dict__.get("edits")
    if edits is not None:
        for node in dead:
            if belongs(graph, node):
                edits.removed.add(node)
                unlink(node)
        return
    gone = IdentitySet(dead)
    if not gone:
        return
    for node in graph.nodes:
        if node in gone:
            unlink(node)
    graph.nodes[:] = [n for n in graph.nodes if n not in gone]


@dataclass(frozen=True)
class _Edits:
    """What `editing` remembers: the nodes of the graph when it began, and those to leave out at its end."""

    present: IdentitySet[gs.Node]
    removed: IdentitySet[gs.Node]


@contextlib.contextmanager
def editing(graph: gs.Graph) -> Iterator[None]:
    """Context for many single removals from one graph: a removed node is unlinked at once, and leaves at the end.

    Each removal would otherwise read the whole list of nodes, and `belongs` too. Until the end a removed node is still
    in graph.nodes, without inputs and outputs. Subgraphs have contexts of their own.
    """
    if graph.__dict__.get("edits") is not None:  # the outer context has it
        yield
        return
    edits = _Edits(IdentitySet(graph.nodes), IdentitySet())
    graph.edits = edits
    try:
        yield
    finally:
        del graph.edits
        if edits.removed:
            graph.nodes[:] = [n for n in graph.nodes if n not in edits.removed]


def unlink(node: gs.Node) -> None:
    """Detach the node, and the nodes of its subgraphs, from every tensor that they read or produce."""
    for attr in node.attrs.values():
        if isinstance(attr, gs.Graph):
            for inner in attr.nodes:
                unlink(inner)
    node.inputs.clear()
    node.outputs.clear()


def bypass(graph: gs.Graph, node: gs.Node, source: gs.Tensor, outputs: set[int]) -> Refused | None:
    """Remove a node of `graph` whose only used output equals `source`.

    A graph output keeps its name: the producer of `source` then produces the output instead. outputs: output_ids.
    """
    result = node.outputs[0]
    if id(result) not in outputs:
        replace_everywhere(graph, result, source)
        remove_nodes(graph, [node])
        return None
    maker = producer(source)
    if is_constant(source):
        return Refused(f"it produces output {result.name} from a constant")
    if maker is None:
        return Refused(f"it connects input {source.name} to output {result.name}")
    if id(source) in outputs:
        return Refused(f"its input {source.name} and its result {result.name} are both outputs")
    if not belongs(graph, maker):
        return Refused(f"its input {source.name} comes from outside the subgraph")
    adopt_output(graph, node, source)
    return None


def adopt_output(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> None:
    """Remove a node of `graph`; the node of the same graph that produces `source` produces its result instead.

    `source` must not be an output; its other readers read the result, which keeps its name.
    """
    result, maker = node.outputs[0], source.inputs[0]
    remove_nodes(graph, [node])
    replace_everywhere(graph, source, result)
    if result.dtype is None:
        result.dtype = source.dtype
    if result.shape is None:
        result.shape = source.shape
    maker.outputs[next(i for i, t in enumerate(maker.outputs) if t is source)] = result
