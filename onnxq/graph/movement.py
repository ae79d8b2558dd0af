"""DequantizeLinears that onnxruntime moves past the operators that read them, and then rejects or computes wrong.

QDQPropagationTransformer of onnxruntime 1.31 (core/optimizer/qdq_transformer/qdq_propagation.cc) moves a
DequantizeLinear with one scale past the operators in MOVED_PAST, and puts a QuantizeLinear of the same parameters
upstream of it. From opset 21 on that one has no kernel for int32, nor for int8 with a zero point; before, it makes
uint8 where the zero point is left out. A DequantizeLinear with several scales stays where it is.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.identity import IdentitySet
from onnxq.graph.match import consumers, input_at, is_constant, is_op, producer
from onnxq.graph.qdq import is_quantize

MOVED_PAST = ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
# onnxruntime may remove these first; arithmetic only with a constant (x + 0, 1 · x).
REMOVED = ("Identity", "Dropout", "Cast", "Expand")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def breaks_before_movement(node: gs.Node | None) -> bool:
    """Whether the node is a DequantizeLinear that only arithmetic may read: of int32, or int8 with a zero point."""
    if node is None or not is_op(node, "DequantizeLinear"):
        return False
    kind = node.inputs[0].dtype
    return kind == np.int32 or (kind != np.uint8 and input_at(node, 2) is not None)


def is_moved(tensor: gs.Tensor) -> bool:
    """Whether onnxruntime may move the DequantizeLinear of this tensor past an operator that reads it."""
    pending, seen = [tensor], IdentitySet([tensor])
    while pending:
        current = pending.pop()
        for node in consumers(current):
            if is_op(node, *MOVED_PAST) and node.inputs[0] is current:
                if not any(is_quantize(n) for n in consumers(node.outputs[0])):  # no movement towards a QuantizeLinear
                    return True
            elif _may_vanish(node, current) and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])
    return False


def _may_vanish(node: gs.Node, tensor: gs.Tensor) -> bool:
    if is_op(node, *REMOVED):
        return node.inputs[0] is tensor
    return is_op(node, *ARITHMETIC) and any(is_constant(t) for t in node.inputs)


def is_dilated_pool(node: gs.Node | None) -> bool:
    """Whether the node is an AveragePool whose windows have gaps, which onnxruntime has in float only."""
    return node is not None and is_op(node, "AveragePool") and any(d != 1 for d in node.attrs.get("dilations") or ())


def keeps_apart(node: gs.Node) -> bool:
    """Whether the node changes nothing, but keeps onnxruntime from fusing an AveragePool with Q/DQ that it rejects."""
    return is_op(node, "Max") and len(node.inputs) == 1 and is_dilated_pool(producer(node.inputs[0]))
