"""Turn a QDQ model back into a float one, so that it can be quantized anew.

Activations: a QuantizeLinear/DequantizeLinear pair is removed; a Relu or Clip that it had absorbed comes back. Weights
and biases: DequantizeLinear of constants becomes the float constant it stands for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph import marks
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import (
    STANDARD_DOMAINS,
    MatchFailure,
    Names,
    belongs,
    constant_values,
    editing,
    producer,
    remove_nodes,
    replace_everywhere,
    scalar_value,
)
from onnxq.graph.qdq import describe, is_grid_clip, spread
from onnxq.graph.refusal import Refused
from onnxq.graph.walk import all_graphs
from onnxq.patterns.nonnegative import KEEPS_SIGN, is_nonnegative
from onnxq.pipeline import Pass, PassResult

# A range that ends this close to 6 was that of a ReLU6.
RELU6_TOLERANCE = 1e-3


@dataclass(frozen=True)
class StripQdq(Pass):
    """Remove QuantizeLinear/DequantizeLinear: weights back to float, activations no longer rounded."""

    name: ClassVar[str] = "strip-qdq"

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Constants first, then activation pairs."""
        names = Names(graph)
        changed, skipped = 0, []
        restored: IdentityMap[gs.Node, gs.Tensor] = IdentityMap()
        for g in all_graphs(graph):
            with editing(g):
                for node in list(g.nodes):
                    if _is(node, "DequantizeLinear") and _fold_constant(g, node):
                        changed += 1
            with editing(g):
                for node in list(g.nodes):
                    if _is(node, "DequantizeLinear"):
                        refused = _strip_pair(g, node, restored, names)
                        if refused is None:
                            changed += 1
                        else:
                            skipped.append(MatchFailure(refused.reason, node.name))
            # A QuantizeLinear whose readers were all DequantizeLinear is dead now; the runner removes it.
        ctx.model.set_metadata("onnxq.card", None)
        return PassResult(changed, tuple(skipped))


def _fold_constant(graph: gs.Graph, node: gs.Node) -> bool:
    info, codes, tensor = describe(node), constant_values(node.inputs[0]), node.outputs[0]
    given = constant_values(node.inputs[1])
    if codes is None or given is None or info.scale is None or info.zero_point is None:
        return False
    if any(tensor is t for t in graph.outputs):
        return False
    codes = codes.astype(np.float32 if codes.dtype.name.startswith("float") else np.int64)
    scale = spread(info.scale.astype(given.dtype), info, codes.shape)
    values = (codes - spread(info.zero_point, info, codes.shape).astype(codes.dtype)).astype(scale.dtype) * scale
    node.inputs.clear()
    node.outputs.clear()
    tensor.to_constant(np.asarray(values, scale.dtype))
    remove_nodes(graph, [node])
    return True


def _strip_pair(
    graph: gs.Graph, node: gs.Node, restored: IdentityMap[gs.Node, gs.Tensor], names: Names
) -> Refused | None:
    """Remove the pair that ends in this DequantizeLinear."""
    quantize = producer(node.inputs[0])
    if quantize is None or not _is(quantize, "QuantizeLinear"):
        return Refused("its input does not come from a QuantizeLinear: integers made elsewhere stay")
    if not belongs(graph, quantize):
        return Refused("its QuantizeLinear is outside the body that it is in")
    if quantize not in restored:
        restored[quantize] = _restore_activation(graph, quantize, names)
    source, result = restored[quantize], node.outputs[0]
    if any(result is t for t in graph.outputs):
        # The output keeps its name: an Identity, which eliminate-identity can fold into the producer.
        node.op, node.attrs, node.domain = "Identity", {}, None
        node.inputs = [source]
        return None
    replace_everywhere(graph, result, source)
    remove_nodes(graph, [node])
    return None


def _is(node: gs.Node, op: str) -> bool:
    """The standard operator, or onnxruntime's own of the same name."""
    return node.op == op and node.domain in (*STANDARD_DOMAINS, "com.microsoft")


def _restore_activation(graph: gs.Graph, quantize: gs.Node, names: Names) -> gs.Tensor:
    """What the QuantizeLinear reads, after the activation that its saturation stands for, if there is one."""
    source = quantize.inputs[0]
    grid = producer(source)
    if grid is not None and is_grid_clip(grid):
        source = grid.inputs[0]  # the Clip to fewer bits is part of the quantization
    limits = _absorbed(quantize, source)
    if limits is None:
        return source
    result = gs.Variable(names.fresh(f"{source.name}_activation"), dtype=source.dtype, shape=source.shape)
    op, inputs = "Relu", [source]
    if limits != (0.0, math.inf):
        op = "Clip"
        inputs += [
            gs.Variable.empty()
            if math.isinf(v)
            else gs.Constant(names.fresh(f"{source.name}_{k}"), np.asarray(v, np.float32))
            for k, v in zip(("min", "max"), limits, strict=True)
        ]
    activation = gs.Node(op, names.fresh(f"{source.name}_{op}"), inputs=inputs, outputs=[result])
    graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is quantize), activation)
    return result


def _absorbed(quantize: gs.Node, source: gs.Tensor) -> tuple[float, float] | None:
    """Bounds of the Relu or Clip that was dropped before this QuantizeLinear."""
    if marks.MADE_BY.on(quantize) or marks.ABSORBED.on(quantize):
        return marks.ABSORBED.get(quantize)
    # Other tools drop it and do not say so, but codes that start at the zero point cannot go below 0. Nobody puts an
    # activation after pooling or a reshape: there, and at graph inputs, it is chance.
    made_by = producer(source)
    if made_by is None or made_by.op in KEEPS_SIGN:
        return None
    zero_point = constant_values(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.uint8)
    scale = scalar_value(quantize.inputs[1])
    if scale is None or zero_point is None or zero_point.size != 1 or zero_point.dtype.kind not in "iu":
        return None
    codes = np.iinfo(zero_point.dtype)
    if int(zero_point.reshape(-1)[0]) != codes.min or is_nonnegative(source):
        return None
    top = scale * (codes.max - codes.min)
    return 0.0, 6.0 if abs(top - 6.0) <= RELU6_TOLERANCE else math.inf
