"""What a target would leave in float in a float model, and why: the placement that `quantize` would use, explained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxq import pipeline
from onnxq.check.findings import Finding
from onnxq.check.fixes import BROKEN, fix_of
from onnxq.context import PassContext
from onnxq.errors import OnnxqError
from onnxq.execution.known_ops import find_unknown
from onnxq.graph.axes import LINEAR_OPS, channel_axis
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import STANDARD_DOMAINS, MatchFailure, constant_values, is_constant, producer
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.passes.fold_batchnorm import FoldBatchNorm
from onnxq.pipeline import Pass
from onnxq.placement.plan import LayerPlan, Placement
from onnxq.placement.planner import plan
from onnxq.placement.rules import Decision, Rule
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile
from onnxq.recipes import prepare_pipeline

INT32_MAX = (1 << 31) - 1
CODES_MIN = 8  # a channel that gets fewer codes than this out of one scale for the tensor has lost its shape
NARROW_FLOATS = ("float16", "bfloat16", "float64")
NOT_COMPUTED = (
    "Identity",
    "Constant",
    "Shape",
    "Size",
    "ConstantOfShape",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
)


def check_float(model: Model, target: Profile, settings: QuantSettings) -> list[Finding]:
    """Findings about a float model; it is left as it is."""
    findings = list(_types(model))
    try:
        prepared, folding = _prepare(model, target)
        fill_types(prepared.graph)
        find_unknown(prepared)
        placement = plan(prepared.graph, target, settings)
    except OnnxqError as err:
        return [*findings, Finding("reject", "", f"it cannot be prepared: {err}", "fix the reported error")]
    findings += [
        Finding("remark", f.node, f"BatchNormalization is not folded: {f.reason}", _batchnorm_fix(f.reason))
        for f in folding
    ]
    nodes = {n.name: n for n in prepared.graph.nodes}
    for failure in placement.skipped:
        node = nodes.get(failure.node)
        if node is None or matters(node):
            findings.append(_left_float(placement.decisions[failure.node], node, target, placement))
    for layer in placement.layers:
        findings += _weights(layer, target)
        findings += _accumulator(layer, target)
    findings += [Finding("note", "", text) for text in placement.notes]
    return findings


def _types(model: Model) -> Iterator[Finding]:
    for tensor in model.graph.inputs:
        name = _type_name(tensor)
        if name in NARROW_FLOATS:
            yield Finding(
                "remark",
                "",
                f"input {tensor.name} is {name}: layers are quantized from float32",
                "nothing to do: onnxq quantize converts the model to float32 first",
            )
    weights = {_type_name(t) for n in model.graph.nodes if n.op in LINEAR_OPS for t in n.inputs if is_constant(t)}
    for name in sorted(weights & set(NARROW_FLOATS)):
        yield Finding(
            "remark",
            "",
            f"weights are {name}: layers are quantized from float32",
            "nothing to do: onnxq quantize converts the model to float32 first",
        )


def _type_name(tensor: gs.Tensor) -> str:
    if tensor.dtype is None:
        return ""
    if isinstance(tensor.dtype, int):
        import onnx

        if tensor.dtype == onnx.TensorProto.UNDEFINED:  # of the elements of a sequence, for one
            return ""
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype).name
    return np.dtype(tensor.dtype).name


def _prepare(model: Model, target: Profile) -> tuple[Model, tuple[MatchFailure, ...]]:
    """A copy as `quantize` would have it before the placement, and why batch normalizations were not folded."""
    copy = from_proto(to_proto(model), path=model.path, sha256=model.sha256)
    opset = max(target.limits.opset_min, copy.opset, 13)
    # Folding alone says of every normalization why not; then, as quantize does, the rest becomes Mul and Add.
    passes: list[Pass] = []
    for p in prepare_pipeline(opset, target.graph.fold_batchnorm):
        passes += (FoldBatchNorm(standalone=False), p) if isinstance(p, FoldBatchNorm) else (p,)
    reports = pipeline.run(copy, passes, PassContext(copy, target))
    return copy, tuple(f for r in reports if r.text == "fold-batchnorm{standalone=false}" for f in r.skipped)


def _batchnorm_fix(reason: str) -> str:
    if "training" in reason:
        return "export the model in inference mode"
    if "run time" in reason:
        return "export with constants folded"
    if "read by" in reason or "graph output" in reason:
        return "none without changing the network: others need its input"
    return "place it next to a layer, or accept a scale and a shift in float"


def matters(node: gs.Node) -> bool:
    """Whether it is a standard operator that computes on floats; shapes and indices are nobody's loss."""
    if node.op in NOT_COMPUTED or node.domain not in STANDARD_DOMAINS:
        return False
    data = [t for t in (*node.inputs[:1], *node.outputs) if not t.is_empty()]
    return all(_type_name(t).startswith(("float", "bfloat")) or not _type_name(t) for t in data)


def _left_float(decision: Decision, node: gs.Node | None, target: Profile, placement: Placement) -> Finding:
    name, reason = decision.node.name, decision.reason
    if node is not None and decision.rule is Rule.PROFILE:
        unfused = _unfused(node, target, placement)
        if unfused:
            return Finding("remark", name, *unfused)
        return Finding("remark", name, f"{node.op} runs in float on {target.name}", fix_of(decision))
    op = node.op if node is not None else "layer"
    is_broken = any(part in reason for part in BROKEN)
    return Finding("reject" if is_broken else "remark", name, f"{op} stays in float: {reason}", fix_of(decision))


def _unfused(node: gs.Node, target: Profile, placement: Placement) -> tuple[str, str] | None:
    """Problem and fix of an activation that the target would run inside the layer upstream, but cannot here."""
    rule = target.graph
    before = producer(node.inputs[0]) if node.inputs else None
    if before is None or node.op not in rule.fused_activations or before.op not in rule.fused_after:
        return None
    decision = placement.decisions.get(before.name)
    if decision is None or decision.action != "quantized":
        return None
    if len(node.inputs) > 1 and any(not is_constant(t) for t in node.inputs[1:] if not t.is_empty()):
        return f"{node.op} is not fused: its bounds are computed at run time", "export with constant bounds"
    return (
        f"{node.op} is not fused into {before.name}, whose output others read too",
        "none without changing the network: it runs on its own",
    )


def _weights(layer: LayerPlan, target: Profile) -> Iterator[Finding]:
    """Channels that a scale for the whole tensor leaves with hardly any codes."""
    axis = channel_axis(layer.node)
    values = constant_values(layer.weight)
    if layer.per_channel or layer.weight_index != 1 or axis is None or values is None or values.ndim < 2:
        return
    largest = np.abs(values.astype(np.float64)).max(axis=tuple(i for i in range(values.ndim) if i != axis))
    step = largest.max(initial=0.0) / layer.weight_format.qmax
    starved = int(((largest > 0) & (2 * largest < CODES_MIN * step)).sum())
    if starved:
        yield Finding(
            "remark",
            layer.node.name,
            f"{starved} of its {largest.size} output channels get fewer than {CODES_MIN} codes: {target.name} has one "
            "scale for the whole weight",
            "a target with per-channel weights, or even out the channels first (cross-layer equalization)",
        )


def _accumulator(layer: LayerPlan, target: Profile) -> Iterator[Finding]:
    """Sums that int32 may not hold: K · max|x| · max|w|."""
    values = constant_values(layer.weight)
    if values is None or values.ndim < 2 or values.size == 0:
        return
    if layer.weight_index == 0:  # the left operand of a MatMul or Gemm: channel_axis is that of the right one
        products = values.shape[0 if layer.node.attrs.get("transA", 0) else -1]
    elif (axis := channel_axis(layer.node)) is not None:
        products = values.size // values.shape[axis]
    else:
        return
    reach = 255 if target.activations.sign != "signed" else 128
    if products * reach * layer.weight_format.qmax > INT32_MAX:
        lowered = target.graph.residual_kept != "float"
        yield Finding(
            "reject" if lowered else "remark",
            layer.node.name,
            f"sums of {products} products may exceed the int32 accumulator",
            "fewer bits for its weights or activations, or keep it in float",
        )
