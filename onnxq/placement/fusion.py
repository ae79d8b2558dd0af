"""What runs inside the layer upstream: biases of MatMuls, activations, guards against NaN (rules N7 and N12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import STANDARD_DOMAINS, is_constant, producer
from onnxq.patterns.attention import nan_guard
from onnxq.patterns.linear_layers import MatMulAdd, matmul_add
from onnxq.placement.classify import Decisions
from onnxq.placement.facts import Job
from onnxq.placement.rules import Decision, Rule


@dataclass(frozen=True)
class Roles:
    """The decision about every node, fused ones included.

    quantized: the nodes that run in integers, in graph order. ends: the tensor downstream of what runs inside each of
    them. biases: a MatMul and the Add of its bias.
    """

    decisions: IdentityMap[gs.Node, Decision]
    quantized: IdentitySet[gs.Node]
    ends: IdentityMap[gs.Node, gs.Tensor]
    biases: IdentityMap[gs.Node, MatMulAdd]


def fuse(job: Job, decided: Decisions) -> Roles:
    """The decisions with what is fused into quantized nodes."""
    quantized = IdentitySet(node for node, decision in decided.items() if decision.action == "quantized")
    adds = (matmul_add(n) for n, decision in decided.items() if decision.rule is Rule.MATMUL_BIAS)
    biases = IdentityMap((found.product, found) for found in adds if found is not None)
    decisions = IdentityMap(decided.items())
    ends: IdentityMap[gs.Node, gs.Tensor] = IdentityMap()
    for node in quantized:
        ends[node], inside = _fused_end(node.outputs[0], job, biases)
        for part in inside:
            decisions[part] = Decision(part, "fused", Rule.ACTIVATION)
    return Roles(decisions, quantized, ends, biases)


def _fused_end(
    tensor: gs.Tensor, job: Job, biases: Mapping[gs.Node, MatMulAdd]
) -> tuple[gs.Tensor, tuple[gs.Node, ...]]:
    """The tensor downstream of what runs inside the layer that makes `tensor`, and those nodes but for a bias."""
    node, order = producer(tensor), job.facts.order
    if node is None:
        return tensor, ()
    if node in biases:
        return _fused_end(biases[node].add.outputs[0], job, biases)
    guard = nan_guard(tensor) if node.op == "Softmax" else None
    if guard is not None and guard[1] in order:
        return guard[1].outputs[0], guard  # what is quantized is never NaN
    reader = job.facts.sole_reader(tensor) if node.op in job.profile.graph.fused_after else None
    # A reader that is not in the graph itself stands in the body of an If or Loop.
    if reader is None or reader not in order or not _is_activation(reader, job):
        return tensor, ()
    return reader.outputs[0], (reader,)


def _is_activation(node: gs.Node, job: Job) -> bool:
    """Whether it is an activation that the target can fuse, with constant bounds."""
    bounds = [t for t in node.inputs[1:] if not t.is_empty()]
    is_named = node.op in job.profile.graph.fused_activations and node.domain in STANDARD_DOMAINS
    return is_named and all(is_constant(t) for t in bounds)
