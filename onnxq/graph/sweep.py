"""The traversal of a pass: runs its steps at every node, counts changes and collects refusals."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnxq.graph.match import MatchFailure, editing
from onnxq.graph.refusal import Refused
from onnxq.graph.walk import all_graphs

Step = Callable[[gs.Graph, gs.Node], int | Refused]


def sweep(graph: gs.Graph, *steps: Step) -> tuple[int, tuple[MatchFailure, ...]]:
    """Run each step at every node of the graph, then of each subgraph; returns (changes, refusals).

    A step receives the graph that contains the node and returns how much it changed (0 or False where it does not
    apply) or why it refuses. Nodes that a step adds are not visited; nodes that it removes may still be.
    """
    changed = 0
    failures = []
    for g in list(all_graphs(graph)):
        for step in steps:
            with editing(g):
                for node in list(g.nodes):
                    outcome = step(g, node)
                    if isinstance(outcome, Refused):
                        failures.append(MatchFailure(outcome.reason, node.name))
                    else:
                        changed += outcome
    return changed, tuple(failures)
