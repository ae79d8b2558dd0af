"""Multiply-accumulates of one node: matrix products of standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxq.cost.concrete_shapes import Shapes
from onnxq.graph.match import STANDARD_DOMAINS, input_at
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.operators import OPERATORS
from onnxq.operators.base.spec import OperatorSpec

# Operator → (index of the data, index of the weight). The standard fixes the positions of the others.
OPERANDS = {
    "Conv": (0, 1), "ConvTranspose": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1), "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1), "QLinearConv": (0, 3), "QLinearMatMul": (0, 3), "DeformConv": (0, 1),
    "LSTM": (0, 1), "GRU": (0, 1), "RNN": (0, 1), "Einsum": (0, 1), "Gather": (1, 0), "PRelu": (0, 1),
    "BatchNormalization": (0, 1), "InstanceNormalization": (0, 1), "LayerNormalization": (0, 1),
}  # fmt: skip
INTEGER_PRODUCTS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
# Standard operators whose products are not counted here: their cost is unknown, not 0.
UNCOUNTED = ("Attention", "LinearAttention", "DFT", "STFT")


def own_operator(node: gs.Node) -> OperatorSpec | None:
    """The description of a node of domain com.onnxq; None for another node."""
    return OPERATORS.get(node.op) if node.domain == OWN_DOMAIN else None


class PackedWeight(NamedTuple):
    """Weights several to a byte in a tensor of another shape: their real shape (outputs, inputs) and width."""

    shape: tuple[int, int]
    bits: int


def packed_weight(node: gs.Node) -> PackedWeight | None:
    """The weight of onnxruntime's MatMulNBits (input 1); None for another node."""
    if (node.domain, node.op) != ("com.microsoft", "MatMulNBits"):
        return None
    outputs, inputs, bits = (node.attrs.get(name, default) for name, default in (("N", 0), ("K", 0), ("bits", 4)))
    if not all(isinstance(v, int) and v > 0 for v in (outputs, inputs, bits)):
        return None
    return PackedWeight((outputs, inputs), bits)


def multiply_accumulates(node: gs.Node, shapes: Shapes) -> int | None:
    """Multiply-accumulates per execution; 0 for operators without matrix products, None if unknown."""
    own = own_operator(node)
    if own is not None:
        return _own_macs(node, own, shapes)
    packed = packed_weight(node)
    if packed is not None:
        data = shapes.of(node.inputs[0])
        return None if data is None else math.prod(data) * packed.shape[0]
    if node.domain not in STANDARD_DOMAINS:
        return None
    if node.op in UNCOUNTED:
        return None
    if node.op not in OPERANDS or node.op in ("Gather", "PRelu") or node.op.endswith("Normalization"):
        return 0
    first, second = (shapes.of(t) if t is not None else None for t in (input_at(node, i) for i in OPERANDS[node.op]))
    out = next((shapes.of(t) for t in node.outputs if not t.is_empty()), None)
    if first is None or second is None:
        return None
    if node.op in ("LSTM", "GRU", "RNN"):
        recurrent = shapes.of(node.inputs[2])
        return None if recurrent is None else first[0] * first[1] * (math.prod(second) + math.prod(recurrent))
    if node.op == "Einsum":
        return _einsum_macs(str(node.attrs.get("equation", "")), [shapes.of(t) for t in node.inputs])
    if node.op == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if out is None:
        return None
    if node.op in ("Conv", "ConvInteger", "QLinearConv", "DeformConv"):
        return math.prod(out) * math.prod(second[1:])
    depth = first[0] if node.op == "Gemm" and node.attrs.get("transA", 0) else first[-1]
    return math.prod(out) * depth


def _own_macs(node: gs.Node, own: OperatorSpec, shapes: Shapes) -> int | None:
    if own.products is None:
        return 0
    x, w, y = (None if t is None else shapes.of(t) for t in (input_at(node, 0), input_at(node, 1), node.outputs[0]))
    if x is None or w is None or y is None:
        return None
    return math.prod(y) * (math.prod(w[1:]) if own.products == "filter" else x[-1])


def _einsum_macs(equation: str, operand_shapes: Sequence[tuple[int, ...] | None]) -> int | None:
    """Two operands: the product of all index ranges. One: 0, nothing is multiplied. More, or an ellipsis: None."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, operand_shapes, strict=True):
        if shape is None or len(term) != len(shape):
            return None
        for index, size in zip(term, shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes.values())


__all__ = ["INTEGER_PRODUCTS", "OPERANDS", "PackedWeight", "multiply_accumulates", "own_operator", "packed_weight"]
