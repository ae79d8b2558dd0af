"""Walking a graph and the subgraphs inside it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

# Tensors up to this are read at once wherever they are: shapes, axes and biases, which passes look at.
SMALL_BYTES = 1 << 16


def all_graphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    """The graph, then every subgraph (If, Loop, Scan bodies) inside it, at any depth."""
    yield graph
    for node in graph.nodes:
        for attr in node.attrs.values():
            if isinstance(attr, gs.Graph):
                yield from all_graphs(attr)
