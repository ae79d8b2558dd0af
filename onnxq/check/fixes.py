"""What to do about a node that is left in float, from the decision that placement made."""

from __future__ import annotations

from onnxq.placement.rules import Decision, Rule

NONE = "none with this profile"
SLOW = f"{NONE}; if it is slow, use an operator that the profile quantizes"
BROKEN = ("NaN", "not finite")  # in reasons that the target would fail on

_BY_RULE = {
    Rule.UNIT: SLOW,
    Rule.PROFILE: SLOW,
    Rule.SCORES: SLOW,
    Rule.USER: "take it out of the exclusions",
    Rule.UNKNOWN: "quantize with --custom-ops LIBRARY, which has the operator",
    Rule.UNUSED: "none needed: it moves values",
    Rule.BODY: "move the layer out of the control flow, or unroll it",
}
# The start of a reason of the other rules.
_BY_REASON = (
    ("not float32", "onnxq opt -p convert-float32"),
    ("its weight is computed at run time", "export with constants folded, or onnxq opt -p fold-constants"),
    ("its weight holds NaN", "export the model again: the weights are broken"),
    ("its weight is empty", "remove the node: it computes nothing"),
    ("its data input is a constant", "onnxq opt -p fold-constants"),
    ("all its inputs are constant", "onnxq opt -p fold-constants"),
    ("cannot share the scale", "fold the constant into the layer upstream, or let it run in float"),
    ("one operand is a constant", "fold the constant into the layer upstream, or let it run in float"),
    ("its constant operand is empty or not finite", "export the model again: the constant is broken"),
    ("operands, two are supported", "split it into sums of two"),
    ("graph scheme 1", "none with this profile: its adds are float by design"),
    ("places no Q/DQ for Concat", "none needed: the target places it"),
    ("products of two activations", NONE),
)


def fix_of(decision: Decision) -> str:
    """How to have the node quantized, or that there is no way."""
    if decision.rule in _BY_RULE:
        return _BY_RULE[decision.rule]
    return next((fix for part, fix in _BY_REASON if part in decision.reason), NONE)
