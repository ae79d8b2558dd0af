"""Traversal of a graph and its subgraphs."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

# Tensors up to this size in bytes are loaded eagerly: shapes, axes and biases, which passes inspect.
SMALL_BYTES = 1 << 16


def all_graphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """The graph, then all its subgraphs (If, Loop, Scan bodies), at any depth."""
    yield graph
    for node in graph.nodes:
        for attr in node.attrs.values():
            if isinstance(attr, gs.Graph):
                yield from all_graphs(attr)
