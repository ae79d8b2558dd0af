"""Groups of nodes and tensors that must share an activation width, and of layers that must share a weight width.

A tensor is quantized once for all its readers, and a node reads all its inputs at one width (placement, T5). So the
tensors that one node reads, the nodes that read one tensor, and the tensors that share a scale (concatenations and
moved values, depending on the profile) form one group: both inputs of a sum where the profile quantizes both, a
downsampling convolution and the parallel block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.errors import ConfigError
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import STANDARD_DOMAINS, producer
from onnxq.placement.fitness import SUMS
from onnxq.placement.plan import Placement


@dataclass(frozen=True)
class ActivationGroup:
    """Nodes that must use the same width, and the tensors that get it. name: of its first layer, or else first node.

    layers: those of the nodes that have weights.
    """

    name: str
    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    tensors: tuple[str, ...]


class Union:
    """Disjoint sets of hashable items, in the order they were first seen."""

    def __init__(self) -> None:
        self.parent: dict[object, object] = {}

    def root(self, key: object) -> object:
        """The representative of the set that contains key; a new set if none does."""
        self.parent.setdefault(key, key)
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def join(self, a: object, b: object) -> None:
        """Merge two sets."""
        self.parent[self.root(b)] = self.root(a)


def activation_groups(placement: Placement, same_buffer: Iterable[Sequence[str]] = ()) -> list[ActivationGroup]:
    """Groups in graph order. same_buffer: further tensors that must have one width.

    Tensors that no quantized node reads (such as the model's outputs) have the profile's width and are in no group.
    """
    union = Union()
    order: dict[str, None] = {}
    points: dict[str, list[str]] = {}
    for point in placement.points:
        key = ("scale", point.group or point.tensor.name)
        union.join(("tensor", point.tensor.name), key)
        points.setdefault(point.tensor.name, [])
        for node, _ in point.edges:
            if placement.actions.get(node.name) == "quantized":
                order[node.name] = None
                union.join(key, ("node", node.name))
    for names in same_buffer:
        for other in names[1:]:
            union.join(("tensor", names[0]), ("tensor", other))
    weighted = {layer.node.name for layer in placement.layers}
    members: dict[object, tuple[list[str], list[str]]] = {}
    for name in order:
        members.setdefault(union.root(("node", name)), ([], []))[0].append(name)
    for name in points:
        root = union.root(("tensor", name))
        if root in members:
            members[root][1].append(name)
    found = []
    for nodes, tensors in members.values():
        layers = tuple(n for n in nodes if n in weighted)
        found.append(ActivationGroup((layers or tuple(nodes))[0], tuple(nodes), layers, tuple(tensors)))
    return found


def weight_ties(
    placement: Placement,
    groups: Sequence[ActivationGroup],
    *,
    blocks: bool = False,
    same: bool = False,
    ties: Iterable[Sequence[str]] = (),
) -> dict[str, str]:
    """{layer: the first layer of those that share its weight width}.

    Layers with the same weight tensor always share it. blocks: also layers that read one tensor and layers that meet in
    a sum (a downsample with its block, both branches into an add), as HAWQ-V3 ties them. same: widths of weights and
    activations are equal, so activation groups tie weights too. ties: further sets of layers, by name.
    Raises ConfigError for a name in ties that is not a layer.
    """
    union = Union()
    names = [layer.node.name for layer in placement.layers]
    for layer in placement.layers:
        union.join(("weight", id(layer.weight)), layer.node.name)
    if same:
        for group in groups:
            _join_all(union, group.layers)
    if blocks:
        _tie_blocks(union, placement)
    for given in ties:
        for name in given:
            if name not in names:
                raise ConfigError(f"ties: {name!r} is not a layer of the model that can be quantized")
        _join_all(union, given)
    first: dict[object, str] = {}
    return {name: first.setdefault(union.root(name), name) for name in names}


def _join_all(union: Union, names: Sequence[str]) -> None:
    for other in names[1:]:
        union.join(names[0], other)


def _tie_blocks(union: Union, placement: Placement) -> None:
    layers = {id(layer.node): layer for layer in placement.layers}
    readers: dict[int, list[str]] = {}
    sums: dict[int, gs.Node] = {}
    for layer in placement.layers:
        data = layer.node.inputs[1 - layer.weight_index]
        readers.setdefault(id(data), []).append(layer.node.name)
        for tensor in layer.node.outputs:
            sums.update((id(n), n) for n in tensor.outputs if n.op in SUMS and n.domain in STANDARD_DOMAINS)
    for names in readers.values():
        _join_all(union, names)
    for node in sums.values():
        makers = [producer(t) for t in node.inputs]
        _join_all(union, [m.name for m in makers if m is not None and m.op in LINEAR_OPS and id(m) in layers])


__all__ = ["ActivationGroup", "Union", "activation_groups", "weight_ties"]
