"""What the rules of placement ask about a graph, computed once before any of them is applied."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import consumers, output_ids, sole_consumer
from onnxq.graph.unknown_ops import dependents
from onnxq.patterns.attention import feeds_softmax, from_integers
from onnxq.patterns.composites import Unit, find_units
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import OpRule, Profile


@dataclass(frozen=True)
class Facts:
    """A graph whose nodes are sorted, analyzed; nothing here changes.

    outputs: match.output_ids of the graph. order: position of each node. depth: layers upstream of each node, on the
    path with most of them. tail: nodes with no layer downstream. ends: those, and nodes with no layer upstream.
    scores: nodes that only feed Softmax. counted: nodes that compute masks and positions from integers. units: the
    normalization or function that a node is part of. unknown: nodes that cannot be run, by id, with the reason.
    """

    graph: gs.Graph
    outputs: Set[int]
    order: IdentityMap[gs.Node, int]
    depth: IdentityMap[gs.Node, int]
    tail: IdentitySet[gs.Node]
    ends: IdentitySet[gs.Node]
    scores: IdentitySet[gs.Node]
    counted: IdentitySet[gs.Node]
    units: IdentityMap[gs.Node, Unit]
    unknown: Mapping[int, str]

    def sole_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """The only node that reads the tensor; None if there are several, none, or it is a graph output."""
        return sole_consumer(tensor, self.outputs)

    def stands_for(self, node: gs.Node) -> gs.Node:
        """The node itself, or the last node of the unit that it is part of."""
        unit = self.units.get(node)
        return node if unit is None else unit.root


@dataclass(frozen=True)
class Job:
    """What every rule is given: a graph analyzed for a profile, and what the user asked for."""

    facts: Facts
    profile: Profile
    settings: QuantSettings

    def rule(self, node: gs.Node) -> OpRule:
        """What the profile does with the node, or with the unit that it is part of."""
        unit = self.facts.units.get(node)
        return self.profile.rule(node.op if unit is None else unit.rule_op)


def analyze(graph: gs.Graph, profile: Profile) -> Facts:
    """The facts about a graph whose nodes are sorted. profile: decides which functions count as units."""
    counted = from_integers(graph)
    units = find_units(graph, profile, counted)
    depth, tail = _layers_upstream(graph), _without_layer_downstream(graph)
    return Facts(
        graph=graph,
        outputs=output_ids(graph),
        order=IdentityMap((node, i) for i, node in enumerate(graph.nodes)),
        depth=depth,
        tail=tail,
        ends=_ends(tail, depth),
        scores=_of_ids(graph, feeds_softmax(graph)),
        counted=_of_ids(graph, counted),
        units=IdentityMap((node, units[id(node)]) for node in graph.nodes if id(node) in units),
        unknown=dependents(graph),
    )


def end_nodes(graph: gs.Graph) -> IdentitySet[gs.Node]:
    """The nodes at the ends of the model: no layer lies upstream of them, or none downstream."""
    return _ends(_without_layer_downstream(graph), _layers_upstream(graph))


def _ends(tail: IdentitySet[gs.Node], depth: IdentityMap[gs.Node, int]) -> IdentitySet[gs.Node]:
    return IdentitySet([*tail, *(node for node, layers in depth.items() if layers == 0)])


def _layers_upstream(graph: gs.Graph) -> IdentityMap[gs.Node, int]:
    found: IdentityMap[gs.Node, int] = IdentityMap()
    for node in graph.nodes:
        makers = [maker for tensor in node.inputs for maker in tensor.inputs]
        found[node] = max([found.get(maker, 0) + (maker.op in LINEAR_OPS) for maker in makers], default=0)
    return found


def _without_layer_downstream(graph: gs.Graph) -> IdentitySet[gs.Node]:
    found: IdentitySet[gs.Node] = IdentitySet()
    for node in reversed(graph.nodes):
        if all(reader.op not in LINEAR_OPS and reader in found for t in node.outputs for reader in consumers(t)):
            found.add(node)
    return found


def _of_ids(graph: gs.Graph, ids: Set[int]) -> IdentitySet[gs.Node]:
    return IdentitySet(node for node in graph.nodes if id(node) in ids)
