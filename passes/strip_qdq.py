"""Turn a QDQ model back into a float one, so that it can be quantized anew.

Activations: a QuantizeLinear/DequantizeLinear pair is removed; a Relu or Clip that it had absorbed comes back. Weights
and biases: DequantizeLinear of constants becomes the float constant it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.match import (
    MatchFailure,
    Names,
    constant_values,
    consumers,
    is_op,
    producer,
    remove_nodes,
    replace_everywhere,
)
from onnxq.model import all_graphs
from onnxq.numeric.quantize import along_axis
from onnxq.passes.fuse_activation_clips import ABSORBED
from onnxq.passes.insert_qdq import GRID_BITS
from onnxq.pipeline import Pass, PassResult
from onnxq.placement import is_nonnegative


@dataclass(frozen=True)
class StripQdq(Pass):
    """Remove QuantizeLinear/DequantizeLinear: weights back to float, activations no longer rounded."""

    name: ClassVar[str] = "strip-qdq"

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Constants first, then activation pairs."""
        names = Names(graph)
        changed, skipped = 0, []
        for g in all_graphs(graph):
            for node in list(g.nodes):
                if is_op(node, "DequantizeLinear") and _fold_constant(g, node):
                    changed += 1
            for node in list(g.nodes):
                if is_op(node, "DequantizeLinear"):
                    reason = _strip_pair(g, node, names)
                    changed += not reason
                    if reason:
                        skipped.append(MatchFailure(reason, node.name))
            # A QuantizeLinear whose readers were all DequantizeLinear is dead now; the runner removes it.
        ctx.model.set_metadata("onnxq.card", None)
        return PassResult(changed, tuple(skipped))


def _fold_constant(graph: gs.Graph, node: gs.Node) -> bool:
    parts = [constant_values(t) for t in node.inputs if not t.is_empty()]
    codes = parts[0]
    scale = parts[1]
    if codes is None or scale is None or any(p is None for p in parts):
        return False
    if node.attrs.get("block_size", 0):
        block, axis = int(node.attrs["block_size"]), int(node.attrs.get("axis", 1))
        spread = [np.repeat(p, block, axis).take(range(codes.shape[axis]), axis) for p in parts[1:] if p is not None]
    else:
        axis = int(node.attrs.get("axis", 1)) if codes.ndim else 0
        spread = [along_axis(p, axis if p.size > 1 else None, codes.ndim) for p in parts[1:] if p is not None]
        spread = [p.reshape(()) if p.size == 1 else p for p in spread]
    zero_point = spread[1].astype(np.int64) if len(spread) > 1 else 0
    values = (codes.astype(np.int64) - zero_point).astype(scale.dtype) * spread[0]
    tensor = node.outputs[0]
    if any(tensor is t for t in graph.outputs):
        return False
    node.inputs.clear()
    node.outputs.clear()
    tensor.to_constant(values.astype(scale.dtype))
    remove_nodes(graph, [node])
    return True


def _strip_pair(graph: gs.Graph, node: gs.Node, names: Names) -> str:
    """Remove the pair that ends in this DequantizeLinear; returns why not, or nothing."""
    quantize = producer(node.inputs[0])
    if quantize is None or not is_op(quantize, "QuantizeLinear"):
        return "its input does not come from a QuantizeLinear: integers made elsewhere stay"
    source, result = quantize.inputs[0], node.outputs[0]
    source = _restore_activation(graph, quantize, source, names)
    if any(result is t for t in graph.outputs):
        # The output keeps its name: an Identity, which eliminate-identity can fold into the producer.
        node.op, node.attrs = "Identity", {}
        node.inputs = [source]
        return ""
    replace_everywhere(graph, result, source)
    remove_nodes(graph, [node])
    return ""


def _restore_activation(graph: gs.Graph, quantize: gs.Node, source: gs.Tensor, names: Names) -> gs.Tensor:
    """The tensor behind the activation that the QuantizeLinear's saturation stands for, made if there is one."""
    known = getattr(quantize, "restored", None)
    if known is not None:
        return known
    absorbed = getattr(quantize, "metadata", {}).get(ABSORBED, "")
    grid = producer(source)
    if grid is not None and GRID_BITS in getattr(grid, "metadata", {}):
        # The Clip to a narrower grid is part of the quantization; what it absorbed is not.
        source = grid.inputs[0]
        absorbed = absorbed or grid.metadata.get(ABSORBED, "")
    zero_point = constant_values(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
    if not absorbed:
        # Other tools drop the Relu too: codes that start at the zero point cannot go below 0.
        lowest = zero_point is None or (
            zero_point.size == 1
            and zero_point.dtype in (np.uint8, np.int8)
            and int(zero_point.reshape(-1)[0]) == np.iinfo(zero_point.dtype).min
        )
        if not lowest or is_nonnegative(source) or not consumers(quantize.outputs[0]):
            return source
        absorbed = "Relu"
    result = gs.Variable(names.fresh(f"{source.name}_activation"), dtype=np.dtype(np.float32), shape=source.shape)
    op, *limits = absorbed.split()
    bounds = [gs.Constant(names.fresh(f"{source.name}_clip_{i}"), np.asarray(v, np.float32)) for i, v in enumerate(limits)]
    activation = gs.Node(op, names.fresh(f"{source.name}_{op}"), inputs=[source, *bounds], outputs=[result])
    graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is quantize), activation)
    quantize.restored = result
    return result
