"""Which tensors must be quantized for the nodes that run in integers: rules T1 to T4 and T8, and N13 of rules.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import consumers, is_constant, is_float, producer
from onnxq.placement.facts import Job
from onnxq.placement.fitness import BINARY, SUMS, may_stay_float
from onnxq.placement.fusion import Roles
from onnxq.placement.residual import Wide, wide_streams
from onnxq.placement.rules import Decision, Rule
from onnxq.profiles.schema import Profile

Edge = tuple[gs.Node, int]


@dataclass(frozen=True)
class Reads:
    """What a quantized node reads in integers. edges: inputs, constants among them, in order.

    wide: the input of a sum that enters directly (T2).
    """

    edges: tuple[Edge, ...]
    wide: gs.Tensor | None = None


@dataclass
class Demand:
    """Which tensors are quantized. edges: the readers of each that read the dequantized tensor, in order of demand.

    whole: tensors that every reader reads dequantized. ties: (source, tensor made from its values) that share a scale.
    constants: (node, input index) of constants in the format of activations. wide: what is read wide (T8).
    """

    edges: IdentityMap[gs.Tensor, list[Edge]] = field(default_factory=IdentityMap)
    whole: IdentitySet[gs.Tensor] = field(default_factory=IdentitySet)
    ties: list[tuple[gs.Tensor, gs.Tensor]] = field(default_factory=list)
    constants: list[Edge] = field(default_factory=list)
    wide: Wide = field(default_factory=Wide)


def demand(job: Job, roles: Roles) -> Demand:
    """The tensors that the quantized nodes need quantized, upstream of movers too."""
    found = Demand(wide=wide_streams(job, roles))
    needs = IdentityMap((node, reads(node, job, roles, found.wide)) for node in roles.quantized)
    for need in needs.values():
        for edge in need.edges:
            _read(edge, found, job, roles)
    wide = IdentitySet(need.wide for need in needs.values() if need.wide is not None)
    for node in roles.quantized:
        if job.rule(node).output != "always":
            continue
        end = roles.ends[node]  # T3
        if end in wide or end in found.wide.tensors or not is_float(end):
            continue
        if node.op == "Concat" and end not in found.edges:
            continue
        _quantize(end, found, job, roles)
        found.whole.add(end)
    return found


def reads(node: gs.Node, job: Job, roles: Roles, streams: Wide) -> Reads:
    """What a quantized node reads in codes (T1, T2, T8); of a Concat nothing, unless its output is quantized (T4)."""
    unit = job.facts.units.get(node)
    if unit is not None:
        return Reads(unit.reads)
    if node.op in LINEAR_OPS:
        return Reads(tuple((node, i) for i in (0, 1) if not is_constant(node.inputs[i])))
    if node.op == "Concat":
        return Reads(())
    indices = [i for i, t in enumerate(node.inputs) if not t.is_empty() and is_float(t)]
    if node.op not in BINARY:
        indices = indices[:1]
    if node in streams.nodes:
        indices = [i for i in indices if not streams.reads(node, i)]
    wide = _wide_input(node, indices, job, roles) if node.op in SUMS and node not in streams.nodes else None
    if wide is not None:
        indices = [i for i in indices if i != wide and not is_constant(node.inputs[i])]
    edges = tuple((node, i) for i in indices if not keeps_constant(node, i, job.profile))
    return Reads(edges, None if wide is None else node.inputs[wide])


def keeps_constant(node: gs.Node, index: int, profile: Profile) -> bool:
    """Whether this input is a constant that the target takes in float."""
    if not is_constant(node.inputs[index]):
        return False
    return profile.rule(node.op).float_constants and may_stay_float(node, index)


def moved(
    tensor: gs.Tensor, job: Job, decisions: Mapping[gs.Node, Decision], streams: Wide
) -> tuple[tuple[Edge, ...], bool]:
    """(inputs that must be quantized for the tensor to be, whether they share its scale), by T4 and T8."""
    node = producer(tensor)
    if node is None or node not in decisions:
        return (), False
    action, rule = decisions[node].action, job.profile.graph
    if node.op == "Concat" and action == "quantized":
        edges = ((node, i) for i in range(len(node.inputs)) if not streams.reads(node, i))
        return tuple(edges), rule.concat == "shared"
    if streams.reads(node, 0):
        return (), False
    if action != "passthrough" or not rule.tie_passthrough:
        return (), False
    source = node.inputs[0]
    return (((node, 0),), True) if is_float(source) and not is_constant(source) else ((), False)


def unused(job: Job, roles: Roles, found: Demand) -> list[Decision]:
    """Concats and passthroughs that run in integers only where something downstream asked for it (N13), last first."""
    wanted: IdentitySet[gs.Node] = IdentitySet(found.wide.nodes)
    left = []
    for node in reversed(job.facts.graph.nodes):
        action = roles.decisions[node].action
        if action != "passthrough" and not (node.op == "Concat" and action == "quantized"):
            continue
        # Where passthroughs are not tied, only the last of several in a row has Q/DQ downstream.
        in_a_row = action == "passthrough" and any(c in wanted for t in node.outputs for c in consumers(t))
        if node in wanted or in_a_row or any(t in found.edges for t in node.outputs):
            wanted.add(node)
        else:
            left.append(Decision(node, "float", Rule.UNUSED, "nothing downstream is quantized"))
    return left


def _wide_input(node: gs.Node, indices: list[int], job: Job, roles: Roles) -> int | None:
    """The input of a sum that enters directly under graph scheme 2 (T2); None where all are quantized."""
    if job.profile.graph.scheme != 2:
        return None
    dynamic = [i for i in indices if not is_constant(node.inputs[i])]
    if len(dynamic) < 2 or node.inputs[dynamic[0]] is node.inputs[dynamic[1]]:
        return None  # x + x has no shortcut to tell apart
    residual = [i for i in dynamic if _is_layer_output(node.inputs[i], job, roles)]
    if not residual and job.profile.graph.residual_kept != "float":
        return None  # in integers only a layer's accumulators can enter wide
    return max(residual or dynamic, key=lambda i: (*_place(node.inputs[i], job), i))


def _place(tensor: gs.Tensor, job: Job) -> tuple[int, int]:
    """(layers upstream, position) of the node that makes the tensor; -1 where none does."""
    node = producer(tensor)
    return (-1, -1) if node is None else (job.facts.depth.get(node, -1), job.facts.order.get(node, -1))


def _is_layer_output(tensor: gs.Tensor, job: Job, roles: Roles) -> bool:
    """Whether a quantized layer makes the tensor, bias included, and one node alone reads it."""
    node = producer(tensor)
    if node is None or job.facts.sole_reader(tensor) is None:
        return False
    is_layer = node.op in LINEAR_OPS and node in roles.quantized
    return is_layer or (node in roles.decisions and roles.decisions[node].rule is Rule.MATMUL_BIAS)


def _read(edge: Edge, found: Demand, job: Job, roles: Roles) -> None:
    """Let a node read an input quantized."""
    node, index = edge
    tensor = node.inputs[index]
    if is_constant(tensor):
        found.constants.append(edge)
        return
    _quantize(tensor, found, job, roles, edge)


def _quantize(tensor: gs.Tensor, found: Demand, job: Job, roles: Roles, edge: Edge | None = None) -> None:
    """Quantize a tensor, for one reader if that is given, and what it is moved from (T4)."""
    is_new = tensor not in found.edges
    readers = found.edges.setdefault(tensor, [])
    if edge is not None and not any(node is edge[0] and index == edge[1] for node, index in readers):
        readers.append(edge)
    if not is_new:
        return
    sources, tied = moved(tensor, job, roles.decisions, found.wide)
    for node, index in sources:
        if keeps_constant(node, index, job.profile):
            continue
        _read((node, index), found, job, roles)
        if tied and not is_constant(node.inputs[index]):
            found.ties.append((node.inputs[index], tensor))
