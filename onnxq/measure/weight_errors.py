"""Quantized weights compared with the float model's."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import constant_values, consumers, is_constant, is_op, producer
from onnxq.graph.qdq import constant_reals, dequantizer, describe
from onnxq.numeric.metrics import ErrorSums


def weight_errors(reference: gs.Graph, tested: gs.Graph) -> dict[str, tuple[int | None, float | None]]:
    """{layer: (bits, SQNR in dB)} of the quantized weights; layers are matched by name. SQNR is None if the
    corresponding float weight is unknown."""
    others = {n.name: n for n in tested.nodes}
    found: dict[str, tuple[int | None, float | None]] = {}
    for node in reference.nodes:
        other = others.get(node.name)
        if not is_op(node, *LINEAR_OPS) or other is None or other.op != node.op:
            continue
        index = next((i for i in (1, 0) if is_constant(node.inputs[i])), None)
        if index is None or dequantizer(other.inputs[index]) is None:
            continue
        expected = _folded(node, index, others)
        actual = constant_reals(other.inputs[index])
        if actual is None:
            continue
        sums = ErrorSums()
        if expected is not None and expected.shape == actual.shape:
            sums.add(expected, actual)
        bits = describe(dequantizer(other.inputs[index])).bits
        found[node.name] = (bits, sums.sqnr_db if sums.count else None)
    return found


def _folded(node: gs.Node, index: int, others: dict[str, gs.Node]) -> NDArray | None:
    """The float weight as in the quantized model: with a removed downstream batch normalization folded in.

    None if an upstream one was folded in, or if folding cannot be repeated here.
    """
    weight = constant_values(node.inputs[index])
    before = producer(node.inputs[1 - index])
    if weight is None or (before is not None and _is_gone(before, others)):
        return None
    readers = consumers(node.outputs[0])
    if len(readers) != 1 or not _is_gone(readers[0], others):
        return weight
    parts = [_through_identity(t) for t in readers[0].inputs[1:5]]
    if node.op != "Conv" or any(p is None for p in parts):
        return None
    gamma, _beta, _mean, variance = parts
    scale = gamma / np.sqrt(variance + float(readers[0].attrs.get("epsilon", 1e-5)))  # type: ignore[operator]
    return np.asarray(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _through_identity(tensor: gs.Tensor) -> NDArray | None:
    node = producer(tensor)
    return constant_values(node.inputs[0] if node is not None and is_op(node, "Identity") else tensor)


def _is_gone(node: gs.Node, others: dict[str, gs.Node]) -> bool:
    return is_op(node, "BatchNormalization") and node.name not in others
