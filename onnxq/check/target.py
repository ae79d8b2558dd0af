"""Pre-flight: what a target would reject in a model, what it would leave in float or unfused, and the fix.

A model without Q/DQ is prepared as `quantize` would do it and its placement is planned (onnxq.check.float_model); one
with Q/DQ is held against the profile as it is (onnxq.check.qdq_model).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from onnxq.check.findings import DYNAMIC_OPS, INTEGER_OPS, SEVERITIES, Finding, Severity
from onnxq.check.float_model import check_float
from onnxq.check.qdq_model import check_qdq
from onnxq.graph.match import STANDARD_DOMAINS, is_own
from onnxq.graph.model import OPSET_MAX, Model, load
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.qdq import CONTRIB, has_qdq, is_dequantize, is_quantize
from onnxq.graph.walk import all_graphs
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile


def check(
    model: str | Path | bytes | onnx.ModelProto | Model,
    profile: str | Path | Profile,
    settings: QuantSettings | None = None,
) -> list[Finding]:
    """What the target of a profile would make of a model, float or QDQ; what it rejects first, else in graph order.

    settings: bits and exclusions that a float model would be quantized with. Raises ModelError and ProfileError.
    """
    target = load_profile(profile)
    loaded = load(model)
    quantized = any(has_qdq(g) or any(_is_integer(n) for n in g.nodes) for g in all_graphs(loaded.graph))
    findings = [*_opset(loaded, target, quantized), *_domains(loaded, target)]
    if quantized:
        findings += _fixable(check_qdq(loaded, target), loaded)
    else:
        findings += check_float(loaded, target, settings or QuantSettings())
    findings += _notes(loaded.graph, target)
    return sorted(dict.fromkeys(findings), key=lambda f: SEVERITIES.index(f.severity))


def _fixable(findings: Iterable[Finding], model: Model) -> Iterator[Finding]:
    """An integer-only model has no float model inside: what quantizing again would fix takes the one it was made of."""
    whole = not any(is_own(n) for g in all_graphs(model.graph) for n in g.nodes)
    for found in findings:
        fix = found.fix.replace("onnxq quantize --requantize", "from the float model: onnxq quantize")
        yield found if whole else replace(found, fix=fix)


def _opset(model: Model, target: Profile, quantized: bool) -> Iterator[Finding]:
    low, high = target.limits.opset_min, min(target.limits.opset_max or OPSET_MAX, OPSET_MAX)
    if model.opset > high:
        who = target.name if target.limits.opset_max and target.limits.opset_max <= OPSET_MAX else "onnxruntime"
        yield Finding(
            "reject",
            "",
            f"opset {model.opset} is above {high}, the newest that {who} reads",
            f"export the model with opset {high} or lower",
        )
    if model.opset < low and quantized:
        yield Finding(
            "reject", "", f"opset {model.opset} is below {low}", f"onnxq opt -p 'convert-opset{{version={low}}}'"
        )
    elif model.opset < low:
        yield Finding("note", "", f"opset {model.opset} will be raised to {low} or more when it is quantized")


def _domains(model: Model, target: Profile) -> Iterator[Finding]:
    for node in (n for g in all_graphs(model.graph) for n in g.nodes):
        contrib = node.domain == CONTRIB
        if is_quantize(node) or is_dequantize(node):
            if contrib and not target.limits.contrib_ops:
                yield Finding(
                    "reject",
                    node.name,
                    f"{node.op} is of domain {CONTRIB}, which only onnxruntime reads",
                    "quantize again: onnxq writes ONNX's own, at opset 21 where the type needs it",
                )
        elif _is_integer(node):
            if target.limits.contrib_ops:
                problem = f"{node.op} stays as it is: it holds integers already and takes no part in Q/DQ fusion"
            else:
                problem = f"{node.op} holds integers itself; {target.name} takes QuantizeLinear/DequantizeLinear only"
            severity: Severity = "remark" if target.limits.contrib_ops else "reject"
            yield Finding(severity, node.name, problem, "quantize the float model to QDQ: onnxq quantize")
        elif node.domain not in (*STANDARD_DOMAINS, OWN_DOMAIN):
            if contrib and target.limits.contrib_ops:
                continue
            yield Finding(
                "remark",
                node.name,
                f"{node.op} is of domain {node.domain}: onnxq cannot tell whether {target.name} has it, and leaves it "
                "in float",
                "export the model with standard ONNX operators, or give the target a plugin for it",
            )


def _is_integer(node: gs.Node) -> bool:
    """Whether the node computes on integers outside the QDQ form."""
    if node.domain in STANDARD_DOMAINS:
        return node.op in (*INTEGER_OPS, *DYNAMIC_OPS)
    return node.domain == CONTRIB and (node.op.startswith(("QLinear", "MatMulInteger", "DynamicQuantize", "QGemm")))


def _notes(graph: gs.Graph, target: Profile) -> Iterator[Finding]:
    """What the profile says about operators that the model has."""
    present = {n.op for n in graph.nodes if n.domain in STANDARD_DOMAINS}
    for op, rule in target.ops.items():
        if rule.note and op in present:
            yield Finding("note", "", f"{op}: {rule.note}")
