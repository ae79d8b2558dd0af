"""Structure of a model from outside, checked before anything walks its graph: no cycles, bounded nesting."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnxq.errors import ModelError

MOST_NESTED = 20  # graphs inside graphs: every walk over them is recursive, and protobuf reads about 30


def check_structure(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for a graph that feeds itself, here or in a subgraph or a function, and for too deep nesting."""
    _check_graph(model.graph.node, where, 0)
    for function in model.functions:
        _check_graph(function.node, where, 0)


def _check_graph(nodes: Iterable[onnx.NodeProto], where: str, depth: int) -> None:
    if depth > MOST_NESTED:
        raise ModelError(f"{where}: its graphs are nested more than {MOST_NESTED} deep")
    nodes = list(nodes)
    inner = [[g for a in n.attribute for g in (*([a.g] if a.HasField("g") else ()), *a.graphs)] for n in nodes]
    for graphs in inner:
        for graph in graphs:
            _check_graph(graph.node, where, depth + 1)
    _check_cycles(nodes, inner, where)


def _check_cycles(nodes: list[onnx.NodeProto], inner: list[list[onnx.GraphProto]], where: str) -> None:
    """Kahn's algorithm: what is left over is on a cycle or downstream of one."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waits = [0] * len(nodes)
    feeds: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        read = set(node.input).union(*map(_captured, inner[i])) if inner[i] else set(node.input)
        for source in {maker[name] for name in read if name in maker}:
            waits[i] += 1
            feeds[source].append(i)
    ready = [i for i, count in enumerate(waits) if not count]
    done = 0
    while ready:
        i = ready.pop()
        done += 1
        for reader in feeds[i]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if done < len(nodes):
        node = nodes[_on_cycle(nodes, feeds, waits)]
        raise ModelError(f"{where}: the graph has a cycle through node {node.name or node.output[0]} ({node.op_type})")


def _on_cycle(nodes: list[onnx.NodeProto], feeds: list[list[int]], waits: list[int]) -> int:
    """A node on a cycle: from any that waits, upstream until one repeats."""
    upstream = {reader: source for source, readers in enumerate(feeds) if waits[source] for reader in readers}
    node, seen = next(i for i, count in enumerate(waits) if count), set()
    while node not in seen:
        seen.add(node)
        node = upstream[node]
    return node


def _captured(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph may read from outside: its outputs and what its nodes read, at any depth, less its own."""
    made = {name for node in graph.node for name in node.output}
    made |= {value.name for value in (*graph.input, *graph.initializer)}
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                read |= _captured(inner)
    return read - made
