"""Operators that only move or pick values: integers pass unchanged, and a QuantizeLinear commutes with them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import constant_values, input_at, is_op
from onnxq.graph.refusal import Refused
from onnxq.lowering.windows import disputed_padding
from onnxq.patterns.resampling import resize_computes

# Where onnxruntime 1.31 has the operator for uint8 and int8 (all tried); input 0 is the data.
MOVERS = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "GatherElements", "GatherND",
    "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Resize", "Identity", "Dropout", "ReverseSequence",
)  # fmt: skip
PICKERS = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin")
JOINERS = ("Concat", "Where", "Max", "Min")  # several inputs, all of them data (except Where's condition)
EIGHT_BIT_ONLY = ("DepthToSpace", "SpaceToDepth")
# Of any type in onnxruntime, or with an operator of ours.
ANY_TYPE = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "Identity", "Dropout",
    "MaxPool",
)  # fmt: skip
VIEWS = ("Identity", "Dropout")


def moved_outputs(node: gs.Node, tensor: gs.Tensor) -> list[gs.Tensor] | None:
    """The outputs with values of `tensor`, if that is all the node does with it; None for other nodes."""
    if is_op(node, *MOVERS, *PICKERS):
        if node.inputs[0] is not tensor or any(t is tensor for t in node.inputs[1:]) or computes(node):
            return None
        return [t for t in node.outputs if not t.is_empty()][: None if node.op == "Split" else 1]
    if is_op(node, *JOINERS):
        data = node.inputs[1:] if node.op == "Where" else node.inputs
        return [node.outputs[0]] if any(t is tensor for t in data) else None
    return None


def computes(node: gs.Node) -> Refused | None:
    """Why a mover or picker does more than move values; None if it does not."""
    if node.op == "Resize":
        return resize_computes(node)
    if node.op == "MaxPool" and any(not t.is_empty() for t in node.outputs[1:]):
        return Refused("its indices output is read")
    if node.op == "MaxPool":
        return disputed_padding(node)
    if node.op == "Dropout":
        training = input_at(node, 2)
        values = None if training is None else constant_values(training)
        if training is not None and (values is None or bool(np.any(values))):
            return Refused("it may be in training mode")
        if any(t.outputs for t in node.outputs[1:]):
            return Refused("its mask output is read")
    if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant" and pad_value(node) is None:
        return Refused("its padding is computed at run time")
    return None


def pad_value(node: gs.Node) -> float | None:
    """The real number that a Pad in constant mode fills in; None if it is unknown."""
    tensor = input_at(node, 2)
    if tensor is None:
        return float(node.attrs.get("value", 0.0))
    values = constant_values(tensor)
    return None if values is None or values.size != 1 else float(values.reshape(-1)[0])
