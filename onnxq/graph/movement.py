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
from onnxq.graph.match import Names, constant_values, consumers, input_at, is_constant, is_op, producer, replace_input
from onnxq.graph.qdq import is_quantize
from onnxq.graph.walk import all_graphs

NO_INT8_POINT = 21  # from this opset on an int8 zero point is what onnxruntime rejects
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
    return any(_moves(node, tensor) for node in consumers(tensor))


def _moves(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether it may be moved past this reader, or past one behind those that onnxruntime may remove first."""
    pending, seen = [(node, tensor)], IdentitySet([tensor])
    while pending:
        node, tensor = pending.pop()
        if is_op(node, *MOVED_PAST) and node.inputs[0] is tensor:
            if not any(is_quantize(n) for n in consumers(node.outputs[0])):  # no movement towards a QuantizeLinear
                return True
        elif _may_vanish(node, tensor) and node.outputs[0] not in seen:
            seen.add(node.outputs[0])
            pending += [(reader, node.outputs[0]) for reader in consumers(node.outputs[0])]
    return False


def _may_vanish(node: gs.Node, tensor: gs.Tensor) -> bool:
    if is_op(node, *REMOVED):
        return node.inputs[0] is tensor
    return is_op(node, *ARITHMETIC) and any(is_constant(t) for t in node.inputs)


def is_dilated_pool(node: gs.Node | None) -> bool:
    """Whether the node is an AveragePool whose windows have gaps, which onnxruntime has in float only."""
    return node is not None and is_op(node, "AveragePool") and any(d != 1 for d in node.attrs.get("dilations") or ())


def keeps_apart(node: gs.Node) -> bool:
    """Whether the node, a Max of one input, changes nothing but keeps onnxruntime from making what it then rejects.

    It stands behind an AveragePool that onnxruntime would fuse with Q/DQ, or a DequantizeLinear that it would move.
    """
    if not is_op(node, "Max") or len(node.inputs) != 1:
        return False
    source = producer(node.inputs[0])
    return is_dilated_pool(source) or (breaks_before_movement(source) and is_moved(node.outputs[0]))


def anchor_int8(graph: gs.Graph) -> int:
    """From opset 21 on: keep DequantizeLinears of int8 in place that onnxruntime would move and then reject.

    A zero point of 0 is left out; else a Max of one input stands before what would be moved past. Subgraphs included.
    Returns the number of changes.
    """
    if int(graph.opset) < NO_INT8_POINT:
        return 0
    names, changed = Names(graph), 0
    for owner in all_graphs(graph):
        for node in list(owner.nodes):
            if breaks_before_movement(node) and node.inputs[0].dtype == np.int8 and not is_constant(node.inputs[0]):
                changed += _anchor(owner, node, names)
    return changed


def _anchor(graph: gs.Graph, node: gs.Node, names: Names) -> bool:
    result, scale, zero = node.outputs[0], constant_values(node.inputs[1]), constant_values(node.inputs[2])
    movers = [n for n in consumers(result) if _moves(n, result)]
    if scale is None or scale.size != 1 or zero is None or not movers:
        return False  # several scales, or known only at run time: it stays
    if not zero.any():
        del node.inputs[2]
        return True
    kept = gs.Variable(names.fresh(f"{result.name}_kept"), result.dtype, result.shape)
    after = gs.Node("Max", names.fresh(f"{node.name}_Max"), {}, [result], [kept])
    for mover in movers:
        replace_input(mover, result, kept)
    graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node) + 1, after)
    return True
