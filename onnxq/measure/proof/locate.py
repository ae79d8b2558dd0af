"""Which node, and which optimizer of onnxruntime, makes two runs of one model differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from onnxq.execution.inner_tensors import output_info
from onnxq.graph.match import is_constant
from onnxq.graph.model import Model, to_proto

# Optimizers of onnxruntime that change quantized models, the usual culprits first; a name that a version does not have
# is ignored by it. (onnxruntime/core/optimizer, 1.32.)
OPTIMIZERS = (
    "WeightBiasQuantization",
    "QDQSelectorActionTransformer",
    "QDQPropagationTransformer",
    "DoubleQDQPairsRemover",
    "ClipQuantRewrite",
    "ReluQuantRewrite",
    "QDQS8ToU8Transformer",
    "QDQFinalCleanupTransformer",
    "EnsureUniqueDQForNodeUnit",
    "TransposeOptimizer",
    "NhwcTransformer",
    "NchwcTransformer",
    "ConstantFolding",
    "CommonSubexpressionElimination",
    "ConstantSharing",
    "ConvActivationFusion",
    "ConvAddActivationFusion",
    "GemmActivationFusion",
    "MatMulIntegerToFloatFusion",
    "DynamicQuantizeMatMulFusion",
    "MatMulAddFusion",
    "MatMulNBitsFusion",
    "MatMulTransposeFusion",
    "GeluFusionL1",
    "GeluFusionL2",
    "LayerNormFusionL1",
    "LayerNormFusionL2",
    "SimplifiedLayerNormFusion",
    "SkipLayerNormFusion",
    "AttentionFusion",
    "EmbedLayerNormFusion",
    "BiasGeluFusion",
    "BiasSoftmaxFusion",
    "FastGeluFusion",
    "QuickGeluFusion",
    "ReshapeFusion",
    "ConvAddFusion",
    "ConvMulFusion",
    "ConvBNFusion",
    "PadFusion",
    "MatmulBNFusion",
    "MatMulScaleFusion",
    "DivMulFusion",
    "FuseReluClip",
    "GemmSumFusion",
    "GemmTransposeFusion",
    "NotWhereFusion",
    "EliminateIdentity",
    "EliminateSlice",
    "UnsqueezeElimination",
    "EliminateDropout",
    "ExpandElimination",
    "CastElimination",
    "NoopElimination",
    "PreShapeNodeElimination",
    "ConcatSliceElimination",
    "Level1_RuleBasedTransformer",
    "Level2_RuleBasedTransformer",
)

Fails = Callable[[onnx.ModelProto], bool]


def first_node(model: Model, fails: Fails) -> str | None:
    """The first node up to which the model fails, by bisection over the model cut behind it; None if no part does.

    fails: whether a model that ends at one tensor fails. If it does, so do those that contain it.
    """
    proto = to_proto(model)
    ends = [
        (node.name, tensor)
        for node in model.graph.nodes
        for tensor in node.outputs[:1]
        if not tensor.is_empty() and not is_constant(tensor) and not _is_constant_node(node)
    ]
    low, high = 0, len(ends)  # the first failing end is in [low, high]
    while low < high:
        middle = (low + high) // 2
        if fails(_ending_at(proto, output_info(ends[middle][1]))):
            high = middle
        else:
            low = middle + 1
    return ends[low][0] if low < len(ends) else None


def _is_constant_node(node: object) -> bool:
    inputs = getattr(node, "inputs", ())
    return not inputs or all(is_constant(t) or t.is_empty() for t in inputs)


def _ending_at(proto: onnx.ModelProto, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    """The model with one output, and without the nodes that it does not need."""
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    graph = part.graph
    del graph.output[:]
    graph.output.append(output)
    needed, kept = {output.name}, []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed |= {*node.input, *_captured(node)}
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [i for i in graph.initializer if i.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    inputs = [i for i in graph.input if i.name in needed]
    del graph.input[:]
    graph.input.extend(inputs)
    return part


def _captured(node: onnx.NodeProto) -> set[str]:
    """Every name that the subgraphs of a node read."""
    found: set[str] = set()
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            found |= {o.name for o in graph.output}
            for inner in graph.node:
                found |= {*inner.input, *_captured(inner)}
    return found


def culprit(differs: Callable[[Sequence[str]], bool], optimizers: Sequence[str] = OPTIMIZERS) -> str | None:
    """The one optimizer without which the runs agree, by bisection; None if no single one can be told.

    differs: whether they still differ without these optimizers.
    """
    suspects = list(optimizers)
    if differs(suspects):
        return None
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        if not differs(half):
            suspects = half
            continue
        rest = suspects[len(half) :]
        if differs(rest):
            return None  # two of them together
        suspects = rest
    return suspects[0]
