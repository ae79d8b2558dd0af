"""The minimum cut of a small flow network (Edmonds-Karp): its nodes on the source side and on the sink side."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

SOURCE, SINK = "source", "sink"
ENDLESS = 1 << 62


class Network:
    """Directed edges with integer capacities; nodes are any hashable objects."""

    def __init__(self) -> None:
        self.room: dict[Hashable, dict[Hashable, int]] = {SOURCE: {}, SINK: {}}

    def edge(self, tail: Hashable, head: Hashable, capacity: int) -> None:
        """Add to the cost of separating `tail` (source side) from `head` (sink side)."""
        out = self.room.setdefault(tail, {})
        out[head] = out.get(head, 0) + capacity
        self.room.setdefault(head, {}).setdefault(tail, 0)

    def sink_side(self) -> set[Hashable]:
        """Nodes on the sink side of a minimum cut; among several cuts, the one with the fewest."""
        while (path := self._path()) is not None:
            flow = min(self.room[a][b] for a, b in path)
            for a, b in path:
                self.room[a][b] -= flow
                self.room[b][a] += flow
        found: set[Hashable] = {SINK}
        waiting: deque[Hashable] = deque(found)
        while waiting:
            node = waiting.popleft()
            for other in self.room[node]:
                if other not in found and self.room[other][node] > 0:
                    found.add(other)
                    waiting.append(other)
        return found - {SINK}

    def _path(self) -> list[tuple[Hashable, Hashable]] | None:
        before: dict[Hashable, Hashable] = {SOURCE: SOURCE}
        waiting: deque[Hashable] = deque([SOURCE])
        while waiting and SINK not in before:
            node = waiting.popleft()
            for other, room in self.room[node].items():
                if room > 0 and other not in before:
                    before[other] = node
                    waiting.append(other)
        if SINK not in before:
            return None
        path: list[tuple[Hashable, Hashable]] = []
        head: Hashable = SINK
        while head != SOURCE:
            path.append((before[head], head))
            head = before[head]
        return path
