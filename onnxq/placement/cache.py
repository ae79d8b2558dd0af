"""The placement of a graph, kept for the passes that ask for it one after the other."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.placement.plan import Placement
from onnxq.placement.planner import plan
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile


class PlanCache:
    """The last placement that was planned, until a pass changes the graph (the runner of passes calls `clear` then)."""

    def __init__(self) -> None:
        self._nodes: list[gs.Node] = []
        self._asked: tuple[Profile, QuantSettings] | None = None
        self._placement: Placement | None = None

    def get(self, graph: gs.Graph, profile: Profile, settings: QuantSettings) -> Placement:
        """planner.plan of the graph, computed once for the same nodes, profile and settings."""
        is_same_order = len(self._nodes) == len(graph.nodes) and all(
            a is b for a, b in zip(self._nodes, graph.nodes, strict=True)
        )
        if self._placement is None or self._asked != (profile, settings) or not is_same_order:
            self._placement = plan(graph, profile, settings)
            self._nodes, self._asked = list(graph.nodes), (profile, settings)
        return self._placement

    def clear(self) -> None:
        """Forget it: the graph is another one now."""
        self._placement = None
        self._nodes.clear()
