"""Streams of wide integers between sums, pools and concatenations: rule T8 of rules.py (HAWQ-V3, eqs. 9 and 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import consumers, is_constant, is_float
from onnxq.placement.facts import Job
from onnxq.placement.fitness import SUMS
from onnxq.placement.fusion import Roles
from onnxq.placement.widths import activation_bits, weight_bits

WIDE = ("int16", "int32")  # residual_kept
FULL = 8  # layers of this width and more: a residual in codes of 8 bits costs little
JOINTS = (*SUMS, "Sub", "AveragePool", "GlobalAveragePool", "Concat")
# What moves or picks wide values; DepthToSpace and the like exist for 8 bits only.
MOVERS = (
    "MaxPool", "GlobalMaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice",
    "Split",
)  # fmt: skip


@dataclass
class Wide:
    """What is read wide. nodes: sums, pools, Concats and movers, and which of their inputs they read so.

    tensors: what they read so. stored: those of them that are rounded to 16 bits.
    """

    nodes: IdentityMap[gs.Node, list[int]] = field(default_factory=IdentityMap)
    tensors: IdentitySet[gs.Tensor] = field(default_factory=IdentitySet)
    stored: IdentitySet[gs.Tensor] = field(default_factory=IdentitySet)

    def reads(self, node: gs.Node, index: int) -> bool:
        """Whether the node reads this input wide."""
        return index in self.nodes.get(node, ())


def wide_streams(job: Job, roles: Roles) -> Wide:
    """The inputs that stay wide: of every stream that has a layer below 8 bits beside it."""
    rule = job.profile.graph
    if rule.residual_kept not in WIDE or rule.all_readers:
        return Wide()
    sources = _sources(job, roles)
    reading = _reading(job, roles, sources)
    streams = _Streams()
    for node, indices in reading.items():
        streams.join(*(node.inputs[i] for i in indices), *_results(node, roles))
    low = IdentitySet(streams.root(t) for t in streams.tensors() if _is_low(t, sources, job, roles))
    found = Wide()
    for node, indices in reading.items():
        tensors = [node.inputs[i] for i in indices]
        if streams.root(tensors[0]) in low:
            found.nodes[node] = indices
            for tensor in tensors:
                found.tensors.add(tensor)
    if rule.residual_kept == "int16":
        direct = IdentitySet(t for node in found.nodes if (t := _direct(node, sources, job)) is not None)
        made = (t for t in found.tensors if not _is_mover(sources[t], roles) and t not in direct)
        found.stored = IdentitySet(made)
    return found


def _direct(node: gs.Node, sources: IdentityMap[gs.Tensor, gs.Node], job: Job) -> gs.Tensor | None:
    """The accumulators that enter a sum directly, as in T2: of a layer that nothing else reads, the deepest."""
    if node.op not in SUMS:
        return None
    layers = [
        (job.facts.depth.get(sources[t], -1), job.facts.order.get(sources[t], -1), i)
        for i, t in enumerate(node.inputs)
        if t in sources and sources[t].op in LINEAR_OPS and job.facts.sole_reader(t) is not None
    ]
    return node.inputs[max(layers)[2]] if layers else None


def _results(node: gs.Node, roles: Roles) -> list[gs.Tensor]:
    return [roles.ends[node]] if node in roles.ends else list(node.outputs[:1] if node.op != "Split" else node.outputs)


def _is_joint(node: gs.Node, job: Job, roles: Roles) -> bool:
    if node not in roles.quantized or node in job.facts.units or node.op not in JOINTS:
        return False
    return node.op != "Concat" or job.profile.graph.concat == "per-input"


def _is_mover(node: gs.Node, roles: Roles) -> bool:
    return node.op in MOVERS and node in roles.decisions and roles.decisions[node].action == "passthrough"


def _sources(job: Job, roles: Roles) -> IdentityMap[gs.Tensor, gs.Node]:
    """The tensors that exist in wide integers, with the node that makes each."""
    found: IdentityMap[gs.Tensor, gs.Node] = IdentityMap()
    for node in job.facts.graph.nodes:
        is_layer = node in roles.quantized and node not in job.facts.units and node.op in LINEAR_OPS
        if is_layer or _is_joint(node, job, roles) or (_is_mover(node, roles) and node.inputs[0] in found):
            for tensor in _results(node, roles):
                if is_float(tensor):
                    found[tensor] = node
    return found


def _reading(job: Job, roles: Roles, sources: IdentityMap[gs.Tensor, gs.Node]) -> IdentityMap[gs.Node, list[int]]:
    """The nodes that can read such tensors, and which of their inputs; movers where what they move is read so."""
    found: IdentityMap[gs.Node, list[int]] = IdentityMap()
    for node in reversed(job.facts.graph.nodes):
        if _is_joint(node, job, roles):
            indices = [i for i, t in enumerate(node.inputs) if t in sources]
        elif _is_mover(node, roles) and any(_reads(r, t, found) for t in _results(node, roles) for r in consumers(t)):
            indices = [0] if node.inputs[0] in sources else []
        else:
            continue
        if indices:
            found[node] = indices
    return found


def _reads(node: gs.Node, tensor: gs.Tensor, reading: IdentityMap[gs.Node, list[int]]) -> bool:
    return any(node.inputs[i] is tensor for i in reading.get(node, ()))


def _is_low(tensor: gs.Tensor, sources: IdentityMap[gs.Tensor, gs.Node], job: Job, roles: Roles) -> bool:
    """Whether a layer below 8 bits makes the tensor or reads it."""
    made_by = sources.get(tensor)
    layers = [*([made_by] if made_by is not None else []), *consumers(tensor)]
    return any(min(_widths(n, job)) < FULL for n in layers if n.op in LINEAR_OPS and n in roles.quantized)


def _widths(node: gs.Node, job: Job) -> Iterator[int]:
    yield activation_bits(node, job)
    if any(is_constant(t) for t in node.inputs[:2]):
        yield weight_bits(node, job)


class _Streams:
    """Tensors that sums, pools and Concats connect."""

    def __init__(self) -> None:
        self._parent: IdentityMap[gs.Tensor, gs.Tensor] = IdentityMap()
        self._all: IdentitySet[gs.Tensor] = IdentitySet()

    def tensors(self) -> Iterator[gs.Tensor]:
        return iter(self._all)

    def root(self, tensor: gs.Tensor) -> gs.Tensor:
        while tensor in self._parent:
            tensor = self._parent[tensor]
        return tensor

    def join(self, first: gs.Tensor, *others: gs.Tensor) -> None:
        self._all.add(first)
        for other in others:
            self._all.add(other)
            a, b = self.root(first), self.root(other)
            if a is not b:
                self._parent[a] = b
