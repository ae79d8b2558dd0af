"""Operators that ONNX's shape inference does not know, replaced by ones of the same shapes while it runs.

Some operators of the standard have no inference (GroupNormalization), those of com.microsoft, which onnxruntime's
optimizer writes, are unknown to onnx. Each has a twin: an operator whose output has the same shape and element type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

CONTRIB = "com.microsoft"
MARK = "onnxq.twin"  # doc_string of nodes that exist only for the inference


@dataclass(frozen=True)
class Twin:
    """op: of the standard. inputs: positions of its inputs among those of the operator. keeps: attributes it shares."""

    op: str = "Identity"
    inputs: Sequence[int] = (0,)
    keeps: Sequence[str] = ()


WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "group", "kernel_shape", "pads", "strides")
SAME = Twin()
STANDARD = {
    "GroupNormalization": SAME,
    "MeanVarianceNormalization": SAME,
    "LessOrEqual": Twin("Less", (0, 1)),
    "GreaterOrEqual": Twin("Greater", (0, 1)),
    # onnxruntime's, in the standard domain
    "SimplifiedLayerNormalization": SAME,
    "Affine": SAME,
    "ParametricSoftplus": SAME,
    "ScaledTanh": SAME,
    "ImageScaler": SAME,
}
MICROSOFT = {
    **dict.fromkeys(
        (
            "BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "GroupNorm", "Inverse",
            "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QuickGelu", "RotaryEmbedding", "SkipGroupNorm",
            "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Trilu",
        ),
        SAME,
    ),
    "DequantizeLinear": Twin("DequantizeLinear", (0, 1, 2), ("axis",)),
    "QuantizeLinear": Twin("QuantizeLinear", (0, 1, 2), ("axis",)),
    "FusedConv": Twin("Conv", (0, 1, 2), WINDOW),
    "FusedGemm": Twin("Gemm", (0, 1, 2), ("alpha", "beta", "transA", "transB")),
    "FusedMatMul": Twin("MatMul", (0, 1)),
    "QLinearAdd": Twin("Add", (0, 3)),
    "QLinearMul": Twin("Mul", (0, 3)),
}  # fmt: skip
# Further outputs with the shape of the first one.
SUMS = {"SkipLayerNormalization": 3, "SkipSimplifiedLayerNormalization": 3, "SkipGroupNorm": 1}


def use_twins(graph: onnx.GraphProto) -> None:
    """Replace, in place and in subgraphs, the operators that inference does not know by their twins."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                use_twins(attribute.g)
    if any(_twin(node) is not None for node in graph.node):
        nodes = onnx.GraphProto(node=[new for node in graph.node for new in _replaced(node)]).node
        graph.ClearField("node")
        graph.node.extend(nodes)


def own_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that stand for the graph's own, in order."""
    return [n for n in graph.node if n.doc_string != MARK]


def _replaced(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    twin = _twin(node)
    if twin is None or not node.output:
        return [node]
    inputs = [node.input[i] for i in twin.inputs if i < len(node.input)]
    made = helper.make_node(twin.op, inputs, [node.output[0]], node.name)
    made.attribute.extend(a for a in node.attribute if a.name in twin.keeps)
    at = SUMS.get(node.op_type)
    if at is None or at >= len(node.output) or not node.output[at]:
        return [made]
    return [made, helper.make_node("Identity", [node.output[0]], [node.output[at]], doc_string=MARK)]


def _twin(node: onnx.NodeProto) -> Twin | None:
    if node.domain in ("", "ai.onnx"):
        return STANDARD.get(node.op_type)
    if node.domain != CONTRIB:
        return None
    if node.op_type == "FusedMatMul" and any(a.name.startswith("trans") and a.i for a in node.attribute):
        return None
    return MICROSOFT.get(node.op_type)
