"""Saturation of a CPU's 16-bit sums: which CPUs have it, what shows that it is the cause, what avoids it."""

from __future__ import annotations

import platform
from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import OnnxqError
from onnxq.execution import library
from onnxq.graph.match import Names, constant_values
from onnxq.graph.model import Model, copy_of
from onnxq.graph.qdq import describe, is_dequantize

CAUSE = "saturation"
EXACT_BITS = 7  # products of such weights and 8-bit codes fit: 2 · 255 · 64 < 2^15
VNNI = ("avx512vnni", "avx512_vnni", "avxvnni", "avx_vnni")


def saturating_cpu() -> bool:
    """Whether this CPU adds products of uint8 and int8 in 16 bits: x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return not any(name in VNNI for name in library.cpu_features())
    except OnnxqError:
        return True  # not known: the caller has already seen a difference that exact sums remove


def with_own_weights(product: Model) -> Model:
    """A copy that computes the same, whose DequantizeLinears share no constant: onnxruntime's exact mode loads it."""
    twin = copy_of(product)
    names = Names(twin.graph)
    for node in twin.graph.nodes:
        if is_dequantize(node):
            for i, tensor in enumerate(node.inputs):
                values = constant_values(tensor)
                if values is not None:
                    node.inputs[i] = _constant(names, node, str(i), values)
    return twin


def with_narrow_weights(product: Model) -> Model:
    """A copy whose int8 constants have half their codes and twice their scale, so that no sum of two can saturate.

    So have int32 constants, the biases of layers, whose scale is that of the weights times the input's.
    """
    twin = copy_of(product)
    names = Names(twin.graph)
    for node in twin.graph.nodes:
        if is_dequantize(node):
            _halve(node, names)
    return twin


def _halve(node: gs.Node, names: Names) -> None:
    codes, info = constant_values(node.inputs[0]), describe(node)
    if codes is None or info.scale is None or info.zero_point is None or codes.dtype not in (np.int8, np.int32):
        return
    if info.zero_point.any():
        return  # half of the codes would not be half of the values
    scale = constant_values(node.inputs[1])
    assert scale is not None  # describe has read it
    node.inputs[0] = _constant(names, node, "narrow_codes", np.rint(codes / 2).astype(codes.dtype))
    node.inputs[1] = _constant(names, node, "narrow_scale", (scale * 2).astype(scale.dtype))


def _constant(names: Names, node: gs.Node, what: str, values: NDArray | np.generic) -> gs.Constant:
    return gs.Constant(names.fresh(f"{node.name}_own_{what}"), np.asarray(values))


def in_words(runtime: str, weight_bits: Collection[int], exact: bool) -> str:
    """What saturates, and what avoids it.

    runtime: that does it. weight_bits: that the target supports. exact: onnxruntime's exact mode runs the model.
    """
    ways = []
    if EXACT_BITS in weight_bits:
        ways.append("weights of 7 bits (--weight-bits 7 --first-last-bits 7)")
    if exact:
        ways.append("onnxruntime's session option session.x64quantprecision=1")
    text = f"this CPU has no VNNI instructions, so that {runtime} adds products of uint8 and int8 in 16 bits, which "
    return text + "saturate; " + (f"use {' or '.join(ways)}" if ways else "CPUs that have them compute it right")


__all__ = ["CAUSE", "in_words", "saturating_cpu", "with_narrow_weights", "with_own_weights"]
