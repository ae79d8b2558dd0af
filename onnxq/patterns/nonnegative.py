"""Activations that are never negative, whatever the input: their formats need no negative codes."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.graph.match import STANDARD_DOMAINS, constant_values, input_at, producer, scalar_value

# Outputs that are never negative.
NONNEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs", "Sqrt")
# Outputs that are not negative if no input is.
KEEPS_SIGN = (
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Reshape", "Flatten", "Transpose", "Squeeze",
    "Unsqueeze", "Concat", "Slice", "Split", "Identity", "Dropout", "DepthToSpace", "SpaceToDepth", "Expand", "Tile",
    "Gather", "LRN",
)  # fmt: skip


def is_nonnegative(tensor: gs.Tensor, known: dict[int, bool] | None = None, depth: int = 64) -> bool:
    """Whether the operators upstream prove that the tensor has no value below 0."""
    known = {} if known is None else known
    if id(tensor) not in known:
        known[id(tensor)] = depth > 0 and _nonnegative(tensor, known, depth - 1)
    return known[id(tensor)]


def _nonnegative(tensor: gs.Tensor, known: dict[int, bool], depth: int) -> bool:
    values = constant_values(tensor)
    if values is not None:
        return bool(values.size == 0 or values.min() >= 0)
    node = producer(tensor)
    if node is None or node.domain not in STANDARD_DOMAINS:
        return False
    if node.op in NONNEGATIVE:
        return True
    if node.op == "Clip":
        low = input_at(node, 1)
        bound = node.attrs.get("min") if low is None else scalar_value(low)
        return bound is not None and float(bound) >= 0
    if node.op in KEEPS_SIGN:
        data = node.inputs if node.op == "Concat" else node.inputs[:1]
        return all(is_nonnegative(t, known, depth) for t in data)
    if node.op in ("Add", "Sum", "Mul", "Max", "Min"):
        return all(is_nonnegative(t, known, depth) for t in node.inputs)
    return False
