"""Which nodes run in integers: rules N0 to N11 of rules.py, each a function that decides or passes the node on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_graphsurgeon as gs

from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import STANDARD_DOMAINS, constant_values, is_constant, is_float
from onnxq.patterns.attention import float_softmax
from onnxq.patterns.composites import Unit
from onnxq.patterns.linear_layers import MatMulAdd, matmul_add
from onnxq.placement.facts import Job
from onnxq.placement.fitness import scheme_refuses, unfit, unfit_mover
from onnxq.placement.rules import Decision, Rule

Decisions = Mapping[gs.Node, Decision]

BY_USER = "left in float by the user"
NO_LAYER_DOWNSTREAM = "no layer downstream; left in float"


def classify(job: Job) -> IdentityMap[gs.Node, Decision]:
    """A decision about every node of the graph, in its order, each by the first rule that applies."""
    decided: IdentityMap[gs.Node, Decision] = IdentityMap()
    for node in job.facts.graph.nodes:
        for rule in _RULES:
            decision = rule(node, job, decided)
            if decision is not None:
                decided[node] = decision
                break
    return decided


def bias_of(add: gs.Node, job: Job, decided: Decisions) -> MatMulAdd | None:
    """The Add as one constant per channel added to a MatMul that is a quantized layer and that nothing else reads."""
    found = matmul_add(add)
    if found is None or not is_float(found.constant) or not _is_quantized(found.product, decided):
        return None
    weight, bias = constant_values(found.product.inputs[1]), constant_values(found.constant)
    if weight is None or bias is None or weight.ndim < 2 or job.facts.sole_reader(found.result) is not add:
        return None
    return found if bias.shape[-1:] == weight.shape[-1:] == (bias.size,) else None


def _is_quantized(node: gs.Node, decided: Decisions) -> bool:
    return node in decided and decided[node].action == "quantized"


def _unknown(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N0."""
    reason = job.facts.unknown.get(id(node))
    return None if reason is None else Decision(node, "float", Rule.UNKNOWN, reason)


def _unit(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N1. The last of the nodes stands for all."""
    unit = job.facts.units.get(node)
    if unit is None:
        return None
    rule, reason = _why_unit_in_float(unit, job)
    if reason:
        return Decision(node, "float", rule, reason)
    return Decision(node, "quantized" if node is unit.root else "fused", Rule.UNIT)


def _why_unit_in_float(unit: Unit, job: Job) -> tuple[Rule, str]:
    asked, settings, rule = job.settings.op_types, job.settings, job.rule(unit.root)
    if any(settings.override_for(n.name).keep_float or settings.excluded(n.name) for n in unit.nodes):
        return Rule.USER, BY_USER
    if asked is not None and unit.rule_op not in asked and any(n.op not in asked for n in unit.nodes):
        return Rule.OP_TYPES, f"it is part of a {unit.rule_op}, which is not among the requested op_types"
    if rule.action == "float" or not is_float(unit.x) or is_constant(unit.x):
        return Rule.UNIT, f"it is part of a {unit.rule_op}, which profile {job.profile.name} runs in float"
    if rule.inner and unit.root in job.facts.tail:
        return Rule.INNER, NO_LAYER_DOWNSTREAM
    return Rule.UNIT, ""


def _float_by_profile(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N2."""
    if node.domain in STANDARD_DOMAINS and job.profile.rule(node.op).action != "float":
        return None
    is_qdq = node.op in ("QuantizeLinear", "DequantizeLinear")
    reason = "" if is_qdq else f"profile {job.profile.name} runs {node.op} in float"
    return Decision(node, "float", Rule.PROFILE, reason)


def _left_by_user(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N3 and N4."""
    if job.settings.override_for(node.name).keep_float or job.settings.excluded(node.name):
        return Decision(node, "float", Rule.USER, BY_USER)
    if job.settings.op_types is not None and node.op not in job.settings.op_types:
        return Decision(node, "float", Rule.OP_TYPES, f"{node.op} is not among the requested op_types")
    return None


def _inner(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N5."""
    if job.profile.rule(node.op).inner and node in job.facts.tail:
        return Decision(node, "float", Rule.INNER, NO_LAYER_DOWNSTREAM)
    return None


def _mover(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N6, and N2 for what does move values."""
    if job.profile.rule(node.op).action != "passthrough":
        return None
    refused = unfit_mover(node)
    if refused is not None:
        return Decision(node, "float", Rule.MOVER, refused.reason)
    return Decision(node, "passthrough", Rule.PROFILE)


def _matmul_bias(node: gs.Node, job: Job, decided: Decisions) -> Decision | None:
    """N7."""
    if job.profile.graph.matmul_bias and bias_of(node, job, decided) is not None:
        return Decision(node, "fused", Rule.MATMUL_BIAS)
    return None


def _kept_exact(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N8 and N9."""
    if node in job.facts.counted:
        return Decision(node, "float", Rule.COUNTED, "it computes a mask or positions from integers")
    if node in job.facts.scores and float_softmax(job.profile):
        reason = f"it only feeds a Softmax, which profile {job.profile.name} runs in float"
        return Decision(node, "float", Rule.SCORES, reason)
    return None


def _operands(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N10."""
    refused = unfit(node, job.profile, node in job.facts.scores)
    return None if refused is None else Decision(node, "float", Rule.OPERANDS, refused.reason)


def _scheme(node: gs.Node, job: Job, _decided: Decisions) -> Decision | None:
    """N11."""
    refused = scheme_refuses(node, job.profile)
    return None if refused is None else Decision(node, "float", Rule.SCHEME, refused.reason)


def _quantized(node: gs.Node, _job: Job, _decided: Decisions) -> Decision:
    """N2."""
    return Decision(node, "quantized", Rule.PROFILE)


_RULES: tuple[Callable[[gs.Node, Job, Decisions], Decision | None], ...] = (
    _unknown,
    _unit,
    _float_by_profile,
    _left_by_user,
    _inner,
    _mover,
    _matmul_bias,
    _kept_exact,
    _operands,
    _scheme,
    _quantized,
)
