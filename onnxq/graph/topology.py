"""Order, dead nodes and structural validity of a graph and its subgraphs; nodes keep their order where possible."""

from __future__ import annotations

import heapq

import onnx_graphsurgeon as gs

from onnxq.errors import PostconditionError
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import output_ids, unlink
from onnxq.graph.walk import all_graphs


def captured(node: gs.Node) -> list[gs.Tensor]:
    """Tensors that the node's subgraphs capture, at any depth (and their inner tensors too, harmlessly)."""
    found = []
    for attr in node.attrs.values():
        if isinstance(attr, gs.Graph):
            for g in all_graphs(attr):
                found += [t for n in g.nodes for t in n.inputs] + list(g.outputs)
    return found


def toposort(graph: gs.Graph) -> None:
    """Sort nodes so that producers come first, here and in subgraphs; ties keep the current order.

    Raises PostconditionError for a cycle and names a node on it.
    """
    for node in graph.nodes:
        for attr in node.attrs.values():
            if isinstance(attr, gs.Graph):
                toposort(attr)
    index = IdentityMap((n, i) for i, n in enumerate(graph.nodes))
    waits = [0] * len(graph.nodes)
    feeds: list[list[int]] = [[] for _ in graph.nodes]
    for i, node in enumerate(graph.nodes):
        sources = {index[p] for t in (*node.inputs, *captured(node)) for p in t.inputs if p in index}
        sources.discard(i)
        waits[i] = len(sources)
        for s in sources:
            feeds[s].append(i)
    ready = [i for i, n in enumerate(waits) if n == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in feeds[i]:
            waits[j] -= 1
            if waits[j] == 0:
                heapq.heappush(ready, j)
    if len(order) < len(graph.nodes):
        stuck = next(i for i, n in enumerate(waits) if n > 0)
        raise PostconditionError(f"the graph has a cycle through node {graph.nodes[stuck].name}")
    graph.nodes[:] = [graph.nodes[i] for i in order]


def remove_dead(graph: gs.Graph) -> int:
    """Remove nodes that nothing reads, here and in subgraphs; returns how many. Graph inputs and outputs stay."""
    return _remove_dead(graph, output_ids(graph))


def _remove_dead(graph: gs.Graph, outputs: set[int]) -> int:
    removed = 0
    # In reverse topological order, each node's subgraphs before the nodes that feed them: one sweep is enough.
    for node in reversed(graph.nodes):
        if any(t.outputs or id(t) in outputs for t in node.outputs if not t.is_empty()):
            for attr in node.attrs.values():
                if isinstance(attr, gs.Graph):
                    removed += _remove_dead(attr, outputs)
        else:
            unlink(node)
            removed += 1
    graph.nodes[:] = [n for n in graph.nodes if n.outputs]
    return removed


def verify(graph: gs.Graph) -> None:
    """Raise PostconditionError unless the graph is sound.

    Every tensor has one producer (or is an input or a constant) and one object; every node input exists and is
    produced before it is used; every output exists; node names are unique.
    """
    _verify(graph, {})
    names: set[str] = set()
    for g in all_graphs(graph):
        for node in g.nodes:
            if node.name in names:
                raise PostconditionError(f"two nodes are named {node.name}")
            names.add(node.name)


def _verify(graph: gs.Graph, outer: dict[str, gs.Tensor]) -> None:
    known = dict(outer)
    for tensor in graph.inputs:
        known[tensor.name] = tensor
    for node in graph.nodes:
        for tensor in node.inputs:
            _check_use(tensor, known, f"node {node.name} ({node.op})")
        for attr in node.attrs.values():
            if isinstance(attr, gs.Graph):
                _verify(attr, known)
        for tensor in node.outputs:
            if tensor.is_empty():
                continue
            if tensor.name in known:
                raise PostconditionError(f"tensor {tensor.name}, produced by node {node.name}, already exists")
            if len(tensor.inputs) > 1:
                makers = " and ".join(n.name for n in tensor.inputs)
                raise PostconditionError(f"tensor {tensor.name} is produced twice, by nodes {makers}")
            if not tensor.inputs or tensor.inputs[0] is not node:
                raise PostconditionError(f"tensor {tensor.name} is not linked to its producer {node.name}")
            known[tensor.name] = tensor
    for tensor in graph.outputs:
        _check_use(tensor, known, "the graph's outputs")


def _check_use(tensor: gs.Tensor, known: dict[str, gs.Tensor], where: str) -> None:
    if tensor.is_empty():
        return
    if tensor.name not in known:
        if isinstance(tensor, gs.Constant):
            known[tensor.name] = tensor
            return
        raise PostconditionError(f"tensor {tensor.name}, read by {where}, is not produced by an earlier node")
    if known[tensor.name] is not tensor:
        raise PostconditionError(f"two tensors are named {tensor.name}, one read by {where}")
