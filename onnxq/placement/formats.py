"""Number formats of layers, constants and tensors, and which tensors share a scale: rules T4 to T7 of rules.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import input_at, is_constant, producer
from onnxq.numeric.formats import STORED_BITS, QuantFormat
from onnxq.patterns.nonnegative import is_nonnegative
from onnxq.placement.demand import Demand
from onnxq.placement.facts import Job
from onnxq.placement.fusion import Roles
from onnxq.placement.plan import ConstantPlan, LayerPlan, Point
from onnxq.placement.widths import activation_bits, weight_bits, width


def layer_plans(job: Job, roles: Roles) -> tuple[list[LayerPlan], list[str]]:
    """The quantized layers with a constant weight, in graph order, and notes. Raises ConfigError for a width."""
    layers, notes = [], []
    for node in roles.quantized:
        if node in job.facts.units or node.op not in LINEAR_OPS or not any(is_constant(t) for t in node.inputs[:2]):
            continue
        layer = _layer_plan(node, job, roles)
        layers.append(layer)
        if _is_stacked(node, layer.weight) and job.profile.granularity(node.op) == "per-channel":
            notes.append(f"{node.name}: its weight is a stack of matrices, which gets one scale")
    return layers, notes


def constant_plans(found: Demand, job: Job) -> list[ConstantPlan]:
    """Constant operands that get the format of an activation."""
    rule = job.profile.activations
    return [
        ConstantPlan(node, index, rule.format(activation_bits(node, job), is_nonnegative(node.inputs[index])))
        for node, index in found.constants
    ]


def points(found: Demand, job: Job, roles: Roles) -> list[Point]:
    """Every tensor that gets Q/DQ with its format, in graph order. Raises ConfigError for a width."""
    derived = IdentitySet(tensor for _, tensor in found.ties)
    result = []
    for name, members in _groups(found):
        # A source that only float operators read is still quantized here: every member is a point.
        nonnegative = all(is_nonnegative(tensor) for tensor in members)
        fmt = job.profile.activations.format(_bits_of(members, found, job, roles), nonnegative)
        sources = tuple(tensor.name for tensor in members if tensor not in derived)
        result += [
            Point(
                tensor,
                fmt,
                nonnegative,
                tuple(found.edges[tensor]),
                tensor in found.whole or _has_all_readers(tensor, job),
                name,
                sources or (tensor.name,),
            )
            for tensor in members
        ]
    graph = job.facts.graph
    tensors = [*graph.inputs, *(t for n in graph.nodes for t in n.outputs)]
    position = {t.name: i for i, t in enumerate(tensors)}
    return sorted(result, key=lambda point: position.get(point.tensor.name, -1))


def stored_points(found: Demand, job: Job) -> list[Point]:
    """The wide tensors that are stored in 16 bits, in graph order (T8)."""
    fmt = QuantFormat(STORED_BITS)
    edges: IdentityMap[gs.Tensor, list[tuple[gs.Node, int]]] = IdentityMap((t, []) for t in found.wide.stored)
    for node, indices in found.wide.nodes.items():
        for index in indices:
            if node.inputs[index] in edges:
                edges[node.inputs[index]].append((node, index))
    tensors = [t for n in job.facts.graph.nodes for t in n.outputs if t in edges]
    return [Point(t, fmt, False, tuple(edges[t]), True, "", (t.name,)) for t in tensors]


def mixed_widths(quantized: Iterable[Point], job: Job, roles: Roles) -> list[str]:
    """Notes on tensors whose readers ask for several widths (T5)."""
    notes = []
    for point in (p for p in quantized if len(p.edges) > 1):
        widths = {node.name: activation_bits(node, job) for node, _ in point.edges if node in roles.quantized}
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{name} asks for {bits}" for name, bits in widths.items())
            notes.append(f"tensor {point.tensor.name} is quantized once, to {point.format.bits} bits: {told}")
    return notes


def _layer_plan(node: gs.Node, job: Job, roles: Roles) -> LayerPlan:
    index = 1 if is_constant(node.inputs[1]) else 0
    weight, rule = node.inputs[index], job.profile.weights
    bits = weight_bits(node, job)
    job.profile.check_bits("weights", bits, f"node {node.name}")
    added = roles.biases.get(node)
    reader, at = (node, 2) if added is None else (added.add, added.index)
    # onnxruntime 1.31 fuses scales per column with a stack of matrices and then fails to run.
    per_channel = job.profile.granularity(node.op) == "per-channel" and index == 1 and not _is_stacked(node, weight)
    return LayerPlan(node, weight, index, rule.format(bits), per_channel, input_at(reader, at), (reader, at))


def _is_stacked(node: gs.Node, weight: gs.Tensor) -> bool:
    """Whether the weight is a stack of matrices, which has one scale."""
    return node.op == "MatMul" and len(weight.shape) > 2


def _has_all_readers(tensor: gs.Tensor, job: Job) -> bool:
    """T7; not for an input of the graph that is an output too, which has no place for Q/DQ."""
    return job.profile.graph.all_readers and (producer(tensor) is not None or id(tensor) not in job.facts.outputs)


def _groups(found: Demand) -> list[tuple[str, list[gs.Tensor]]]:
    """(name, tensors) of what shares a scale, in order of demand; the name is "" for a tensor on its own."""
    parent: IdentityMap[gs.Tensor, gs.Tensor] = IdentityMap()

    def root(tensor: gs.Tensor) -> gs.Tensor:
        while tensor in parent:
            tensor = parent[tensor]
        return tensor

    for source, derived in found.ties:
        a, b = root(source), root(derived)
        if a is not b:
            parent[a] = b
    groups: IdentityMap[gs.Tensor, list[gs.Tensor]] = IdentityMap()
    for tensor in found.edges:
        groups.setdefault(root(tensor), []).append(tensor)
    return [(first.name if len(members) > 1 else "", members) for first, members in groups.items()]


def _bits_of(members: Sequence[gs.Tensor], found: Demand, job: Job, roles: Roles) -> int:
    """T5 for tensors that share a scale; T6 for what no quantized node reads."""
    readers = [job.facts.stands_for(node) for tensor in members for node, _ in found.edges[tensor]]
    widths = [activation_bits(node, job) for node in readers if node in roles.quantized]
    if not widths:
        at_end = any(node in job.facts.tail for node in map(producer, members) if node is not None)
        widths = [width(job.settings.activation_bits, job.profile.activations.bits, at_end, job)]
    bits = max(widths)
    job.profile.check_bits("activations", bits, f"tensor {members[0].name}")
    return bits
