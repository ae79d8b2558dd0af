"""Decomposed functions of one tensor: GELU from Erf or Tanh, x · sigmoid(x), HardSwish in pieces.

A target with lookup tables computes them with one table, exact whatever the function. Quantized operator by operator,
they would be rounded at every step.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.graph.match import constant_values, consumers, is_constant, is_float, is_op, output_ids, producer
from onnxq.numeric.activations import ACTIVATIONS, CLAMPS, JOINS


@dataclass(frozen=True)
class Function:
    """One function. nodes: in graph order; root is the last. reads: (node, input index) where x is read."""

    nodes: tuple[gs.Node, ...]
    root: gs.Node
    x: gs.Tensor
    reads: tuple[tuple[gs.Node, int], ...]

    @property
    def rule_op(self) -> str:
        """The operator whose profile rule applies to the whole."""
        return "Gelu"


def find_functions(graph: gs.Graph, taken: Set[int] = frozenset()) -> list[Function]:
    """Functions of two or more nodes with one input, whose inner tensors nothing else reads; largest first.

    taken: ids of nodes that belong to something else. Chains of only sums and products with constants, Relu and Clip
    do not count: they fold into the upstream layer.
    """
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    outputs, used = output_ids(graph), set(taken)
    found = []
    for root in reversed(graph.nodes):
        if id(root) in used or not _is_step(root):
            continue
        function = _behind(root, order, outputs, used)
        if function is not None:
            found.append(function)
            used |= {id(n) for n in function.nodes}
    return found[::-1]


def _behind(root: gs.Node, order: dict[int, int], outputs: set[int], used: set[int]) -> Function | None:
    """The largest function that ends in the node."""
    inside, best = {id(root): root}, None
    while True:
        inputs = {id(t): t for n in inside.values() for t in _operands(n) if id(producer(t)) not in inside}
        if len(inputs) == 1:
            (source,) = inputs.values()
            best = _function(root, source, inside, order) or best
        steps = [
            p
            for t in inputs.values()
            if (p := producer(t)) is not None
            and id(p) in order
            and id(p) not in used
            and _is_step(p)
            and id(t) not in outputs
            and all(id(c) in inside for c in consumers(t))
        ]
        if not steps:
            return best
        last = max(steps, key=lambda n: order[id(n)])
        inside[id(last)] = last


def _function(root: gs.Node, x: gs.Tensor, inside: dict[int, gs.Node], order: dict[int, int]) -> Function | None:
    if len(inside) < 2 or not is_float(x) or not any(_is_curved(n) for n in inside.values()):
        return None
    nodes = sorted(inside.values(), key=lambda n: order[id(n)])
    reads = tuple((n, i) for n in nodes for i, t in enumerate(n.inputs) if t is x)
    if len(reads) == 1 and is_op(reads[0][0], *CLAMPS):
        return None  # it folds into the layer that produces x
    return Function(tuple(nodes), root, x, reads)


def _operands(node: gs.Node) -> list[gs.Tensor]:
    return [t for t in node.inputs if not t.is_empty() and not is_constant(t)]


def _is_step(node: gs.Node) -> bool:
    """Whether the node computes each element from the elements at its position and constants."""
    if not is_op(node, *ACTIVATIONS, *JOINS) or not all(is_float(t) for t in (*_operands(node), *node.outputs)):
        return False
    if (len(node.inputs) != 2) if node.op in JOINS else (len(_operands(node)) != 1):
        return False
    shape = node.outputs[0].shape
    rank = 0 if shape is None else len(shape)
    constants = [constant_values(t) for t in node.inputs if is_constant(t)]
    return all(v is not None and v.size == 1 and v.ndim <= max(rank, 1) for v in constants)


def _is_curved(node: gs.Node) -> bool:
    """Whether the node is more than a sum or product with a constant, or a clamp."""
    return node.op == "Pow" or (len(_operands(node)) == 2 if node.op in JOINS else node.op not in CLAMPS)
