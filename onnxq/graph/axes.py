"""Axes: the output-channel axis of a weight, per operator (onnxruntime #19694 got it wrong), and reduction axes."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from onnxq.graph.match import constant_values, input_at

LINEAR_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def channel_axis(node: gs.Node) -> int | None:
    """Axis of input 1 (of input 0 for Gather) along which per-channel scales run; None where there is none.

    Conv 0; ConvTranspose 1; Gemm 0 with transB, else 1; MatMul last (None for a vector); Gather 0.
    """
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    if node.op == "MatMul":
        shape = node.inputs[1].shape
        return len(shape) - 1 if shape is not None and len(shape) >= 2 else None
    if node.op == "Gather":
        return 0
    return None


def out_channels(node: gs.Node) -> int | None:
    """Number of output channels of a layer whose input 1 is a constant weight: the length of its bias."""
    axis = channel_axis(node)
    shape = node.inputs[1].shape if len(node.inputs) > 1 else None
    if axis is None or shape is None or not isinstance(shape[axis], int):
        return None
    groups = int(node.attrs.get("group", 1)) if node.op == "ConvTranspose" else 1
    return int(shape[axis]) * groups


def listed_axes(node: gs.Node) -> list[int] | None:
    """The axes of a reduction as given in its attribute or input: [] for none, None if computed at run time."""
    tensor = input_at(node, 1)
    if tensor is not None:
        values = constant_values(tensor)
        return None if values is None else values.reshape(-1).tolist()
    return [int(a) for a in node.attrs.get("axes") or ()]


def reduced_axes(node: gs.Node, rank: int) -> list[int] | None:
    """The axes that a reduction covers, sorted and non-negative; None where they are computed at run time."""
    listed: Iterable[int] | None = listed_axes(node)
    if listed is None:
        return None
    if not listed:
        listed = [] if int(node.attrs.get("noop_with_empty_axes", 0)) else range(rank)
    return sorted({int(a) % rank for a in listed})
