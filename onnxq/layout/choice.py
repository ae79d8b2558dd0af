"""Which operators to compute transposed: the choice that minimizes the bytes moved by Transposes.

A region is a set of neighbouring operators that all accept the same permutation, grown from an operator next to a
Transpose. Each of them is computed as it is or transposed. Where a value is produced in one order and read in another,
the copy costs its bytes, once for all its readers. That is a minimum cut (onnxq.layout.mincut); the few cases that a
cut cannot express are approximated, and a result is accepted only if its exact cost is lower than the current one.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxq.graph.match import output_ids
from onnxq.layout.copies import Value, values_of
from onnxq.layout.flip import Flip, Given
from onnxq.layout.mincut import ENDLESS, SINK, SOURCE, Network
from onnxq.layout.perms import Perm, inverse, is_identity, then
from onnxq.layout.rules import propose

Choice = dict[int, tuple[gs.Node, Flip]]


class Layouts:
    """The values of the current graph, and the search for a better choice."""

    def __init__(self, graph: gs.Graph) -> None:
        self.values = values_of(graph)
        self.kept = frozenset(output_ids(graph))
        self.own = {id(n) for n in graph.nodes}
        self.where = {id(c.tensor): (value, c.layout) for value in self.values for c in value.copies}

    def better(self) -> Choice | None:
        """Nodes to transpose so that Transposes move fewer bytes; None if no region improves."""
        done: set[tuple[int, tuple, tuple]] = set()
        for node, given in self._seeds():
            region = self._grow(node, given, done)
            if not region:
                continue
            done |= {(key, flip.inputs, flip.outputs) for key, (_, flip) in region.items()}
            chosen = self._solve(region)
            if chosen:
                return {key: region[key] for key in chosen}
        return None

    def _seeds(self) -> Iterator[tuple[gs.Node, Given]]:
        """Nodes next to a Transpose, with the permutation that would eliminate it."""
        for value in self.values:
            for copy in value.copies[1:]:
                if is_identity(copy.layout):
                    continue
                for reader in value.readers:
                    if reader.layout == copy.layout:
                        yield reader.node, Given(inverse(copy.layout), reader.index, False, self.kept)
                if value.maker is not None:
                    yield value.maker, Given(copy.layout, value.slot, True, self.kept)

    def _grow(self, node: gs.Node, given: Given, done: Collection[tuple[int, tuple, tuple]]) -> Choice:
        region: Choice = {}
        todo = [(node, given)]
        while todo:
            node, given = todo.pop(0)
            flip = None if id(node) in region or id(node) not in self.own else propose(node, given)
            if not isinstance(flip, Flip) or not self._ranks_known(node, flip):
                continue
            if not region and (id(node), flip.inputs, flip.outputs) in done:
                return {}
            region[id(node)] = (node, flip)
            for tensor, perm in zip((*node.inputs, *node.outputs), (*flip.inputs, *flip.outputs), strict=True):
                if perm is None:
                    continue
                value, layout = self.where[id(tensor)]
                if is_identity(layout) and value.maker is not None:
                    todo.append((value.maker, Given(perm, value.slot, True, self.kept)))
                todo += [(r.node, Given(perm, r.index, False, self.kept)) for r in value.readers if r.layout == layout]
        return region

    def _ranks_known(self, node: gs.Node, flip: Flip) -> bool:
        for tensor, perm in zip((*node.inputs, *node.outputs), (*flip.inputs, *flip.outputs), strict=True):
            if perm is not None and len(self.where.get(id(tensor), (None, ()))[1]) != len(perm):
                return False
        return True

    def _touched(self, region: Choice) -> list[Value]:
        return [v for v in self.values if id(v.maker) in region or any(id(r.node) in region for r in v.readers)]

    def _solve(self, region: Choice) -> set[int]:
        """The nodes of the region to transpose; empty if leaving all unchanged costs no more."""
        touched = self._touched(region)
        count = any(v.elements() is None for v in touched)
        network = Network()
        for value in touched:
            _add(network, value, region, count)
        cut = {key for key in network.sink_side() if isinstance(key, int)}
        prices = [
            (sum(price(v, region, flipped, count) for v in touched), len(flipped), flipped)
            for flipped in (set(), cut, set(region))
        ]
        return min(prices, key=lambda p: p[:2])[2]


def made_in(value: Value, region: Choice, flipped: Collection[int]) -> Perm:
    """The layout, relative to the current root, in which the producer stores the value."""
    perm = region[id(value.maker)][1].outputs[value.slot] if id(value.maker) in flipped else None
    return value.copies[0].layout if perm is None else perm


def read_in(value: Value, region: Choice, flipped: Collection[int]) -> list[Perm]:
    """The layout that each reader then needs."""
    found = []
    for reader in value.readers:
        perm = region[id(reader.node)][1].inputs[reader.index] if id(reader.node) in flipped else None
        found.append(reader.layout if perm is None else then(reader.layout, perm))
    return found


def price(value: Value, region: Choice, flipped: Collection[int], count: bool) -> int:
    """The cost of the value's copies."""
    stored = made_in(value, region, flipped)
    wanted = dict.fromkeys((c.layout for c in value.pinned), False)
    for reader, layout in zip(value.readers, read_in(value, region, flipped), strict=True):
        wanted[layout] = wanted.get(layout, False) or reader.inner
    return sum(value.price(stored, layout, inner, count) for layout, inner in wanted.items())


def _add(network: Network, value: Value, region: Choice, count: bool) -> None:
    """Edges for the copies of a value. A node on the sink side is transposed.

    A copy is paid for if any reader needs it; the surcharge of an inner copy if an inner reader needs it.
    """
    maker = id(value.maker) if id(value.maker) in region else None
    made = [made_in(value, region, ()), made_in(value, region, region)]
    as_is, turned = read_in(value, region, ()), read_in(value, region, region)
    readers = [_Read(id(r.node), a, b, r.inner) for r, a, b in zip(value.readers, as_is, turned, strict=True)]
    for layout in {*(c.layout for c in value.pinned), *as_is, *turned}:
        plain, full = ([value.price(m, layout, inner, count) for m in made] for inner in (False, True))
        pinned = any(c.layout == layout for c in value.pinned)
        _add_copy(network, maker, layout, readers, plain, pinned, (id(value), layout, "any"))
        more = [f - p for f, p in zip(full, plain, strict=True)]
        _add_copy(network, maker, layout, [r for r in readers if r.inner], more, False, (id(value), layout, "inner"))


class _Read(NamedTuple):
    """A reader: its node, the layouts it needs when unchanged and when transposed, and whether it is an inner one."""

    key: int
    as_is: Perm
    turned: Perm
    inner: bool


def _add_copy(
    network: Network,
    maker: int | None,
    layout: Perm,
    readers: list[_Read],
    costs: list[int],
    always: bool,
    name: tuple[Hashable, ...],
) -> None:
    """Edges for a copy in one layout. costs: with the producer unchanged, and transposed. always: needed regardless."""
    if always or any(r.as_is == r.turned == layout for r in readers):
        if maker is not None:
            network.edge(SOURCE, maker, costs[1])
            network.edge(maker, SINK, costs[0])
        return
    least = min(costs)
    for turned in (False, True):
        keys = [r.key for r in readers if (r.turned if turned else r.as_is) == layout]
        rest = costs[0 if turned else 1] - least
        # Paid once if any of the readers is on this side: `least` regardless of the producer, and `rest` if the
        # producer is on the other side. A higher cost on the same side (three orders at a time) is ignored.
        for amount, other in ((least, SOURCE if turned else SINK), (rest, maker)):
            if keys and amount and other is not None:
                _once(network, keys, other, amount, turned, (*name, turned, other))


def _once(network: Network, keys: list[int], other: Hashable, amount: int, turned: bool, joint: Hashable) -> None:
    if turned:
        network.edge(other, joint, amount)
        for key in keys:
            network.edge(joint, key, ENDLESS)
    else:
        network.edge(joint, other, amount)
        for key in keys:
            network.edge(key, joint, ENDLESS)
