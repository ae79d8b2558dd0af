"""Reading QDQ models, ours and other tools': the parameters of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ModelError, printable
from onnxq.graph import marks
from onnxq.graph.match import STANDARD_DOMAINS, constant_values, consumers, input_at, producer
from onnxq.numeric.quantize import along_axis

CONTRIB = "com.microsoft"  # onnxruntime's own Q/DQ, for types that older opsets lack
QDQ = ("QuantizeLinear", "DequantizeLinear")  # operator names, of either domain


@dataclass(frozen=True)
class QdqInfo:
    """Parameters of one QuantizeLinear or DequantizeLinear.

    scale: float64, zero_point: int64, of shape (), (channels,) or, in blocks, of the tensor's rank; None when computed
    at run time. type: of the codes, e.g. "uint8". bits, signed: of that type. axis: of the channels (as in the node,
    possibly negative), None per tensor. block: number of elements per scale along the axis, 0 without blocks.
    """

    node: gs.Node
    scale: NDArray[np.float64] | None
    zero_point: NDArray[np.int64] | None
    type: str
    axis: int | None
    block: int

    @property
    def bits(self) -> int:
        """Width of the code type in bits."""
        return int("".join(c for c in self.type if c.isdigit())[:2] or 0) if "int" in self.type else 8

    @property
    def signed(self) -> bool:
        """Whether the codes are signed."""
        return not self.type.startswith("u")

    @property
    def per_channel(self) -> bool:
        """Whether the tensor has a scale per channel."""
        return self.axis is not None

    def same_scale(self, other: QdqInfo) -> bool:
        """Whether both map codes to the same real values."""
        return _equal(self.scale, other.scale) and _equal(self.zero_point, other.zero_point)


def is_quantize(node: gs.Node | None) -> bool:
    """Whether the node is a QuantizeLinear, ONNX's or onnxruntime's."""
    return node is not None and node.op == "QuantizeLinear" and node.domain in (*STANDARD_DOMAINS, CONTRIB)


def is_dequantize(node: gs.Node | None) -> bool:
    """Whether the node is a DequantizeLinear, ONNX's or onnxruntime's."""
    return node is not None and node.op == "DequantizeLinear" and node.domain in (*STANDARD_DOMAINS, CONTRIB)


def describe(node: gs.Node) -> QdqInfo:
    """The parameters of a Q or DQ node."""
    scale = constant_values(node.inputs[1])
    point = input_at(node, 2)
    if point is None:
        zero = None if scale is None else np.zeros(scale.shape, np.int64)
    else:
        values = constant_values(point)
        zero = None if values is None else values.astype(np.int64)
    axis = int(node.attrs.get("axis", 1)) if scale is not None and scale.size > 1 else None
    block = int(node.attrs.get("block_size", 0))
    real = None if scale is None else scale.astype(np.float64)
    if real is not None and real.size == 1:
        real = real.reshape(())
        zero = zero.reshape(()) if zero is not None and zero.size == 1 else zero
    return QdqInfo(node, real, zero, _code_type(node, point), axis, block)


def dequantizer(tensor: gs.Tensor) -> gs.Node | None:
    """The DequantizeLinear that produces the tensor, if any."""
    node = producer(tensor)
    return node if is_dequantize(node) else None


def quantizers(tensor: gs.Tensor) -> list[gs.Node]:
    """The QuantizeLinear nodes that read the tensor, directly or through a grid Clip."""
    found = []
    for node in consumers(tensor):
        if is_quantize(node) and node.inputs[0] is tensor:
            found.append(node)
        elif grid_bits(node):
            found += quantizers(node.outputs[0])
    return found


def is_grid_clip(node: gs.Node | None) -> bool:
    """Whether this Clip only restricts the codes of the QuantizeLinear that reads it to fewer bits."""
    return node is not None and node.op == "Clip" and marks.BITS.on(node)


def grid_bits(node: gs.Node | None) -> int:
    """Width in bits to which a grid Clip restricts the codes of its QuantizeLinear; 0 for other nodes."""
    return (marks.BITS.get(node) or 0) if is_grid_clip(node) else 0


def entry(quantize: gs.Node) -> gs.Tensor:
    """The float tensor that is quantized: the QuantizeLinear's input, or the input of its grid Clip."""
    clip = producer(quantize.inputs[0])
    return clip.inputs[0] if clip is not None and grid_bits(clip) else quantize.inputs[0]


def activation_bits(quantize: gs.Node) -> int:
    """Effective width of a quantized activation in bits."""
    return grid_bits(producer(quantize.inputs[0])) or describe(quantize).bits


def pair(dequantize: gs.Node) -> gs.Node | None:
    """The QuantizeLinear that feeds a DequantizeLinear, if any."""
    node = producer(dequantize.inputs[0])
    return node if is_quantize(node) else None


def constant_reals(tensor: gs.Tensor) -> NDArray | None:
    """The real values of a constant, quantized or not: float, DQ(codes) or DQ(Q(float)); None if computed at run time.

    float32 or the type of the scale; shape of the tensor.
    """
    values = constant_values(tensor)
    if values is not None:
        return values
    node = dequantizer(tensor)
    if node is None:
        return None
    info = describe(node)
    if info.scale is None or info.zero_point is None:
        return None
    codes = constant_values(node.inputs[0])
    if codes is None:
        quantize = pair(node)
        source = constant_values(quantize.inputs[0]) if quantize is not None else None
        if source is None:
            return None
        low, high = code_range(info)
        scale, zero = spread(info.scale, info, source.shape), spread(info.zero_point, info, source.shape)
        codes = np.clip(np.rint(source.astype(np.float32) / scale.astype(np.float32)) + zero, low, high)
    scale, zero = spread(info.scale, info, codes.shape), spread(info.zero_point, info, codes.shape)
    return ((codes.astype(np.int64) - zero) * scale).astype(np.float32)


def is_quantized_constant(tensor: gs.Tensor) -> bool:
    """Whether the tensor is a constant that a DequantizeLinear reads, stored as integers or as float."""
    node = dequantizer(tensor)
    if node is None:
        return False
    quantize = pair(node)
    source = quantize.inputs[0] if quantize is not None else node.inputs[0]
    return isinstance(source, gs.Constant)


def code_range(info: QdqInfo) -> tuple[int, int]:
    """Smallest and largest code of the integer type."""
    if info.signed:
        return -(1 << (info.bits - 1)), (1 << (info.bits - 1)) - 1
    return 0, (1 << info.bits) - 1


def has_qdq(graph: gs.Graph) -> bool:
    """Whether the graph has a QuantizeLinear or DequantizeLinear."""
    return any(is_quantize(n) or is_dequantize(n) for n in graph.nodes)


def spread(values: NDArray, info: QdqInfo, shape: tuple[int, ...]) -> NDArray:
    """Per-channel or per-block values, reshaped to broadcast over the tensor. Raises ModelError if they do not fit."""
    if info.axis is None:
        return values
    fits = -len(shape) <= info.axis < len(shape)
    axis = info.axis % len(shape) if fits else 0
    if fits and info.block:
        blocks = (*shape[:axis], -(-shape[axis] // info.block), *shape[axis + 1 :])
        if values.shape == blocks:
            return np.repeat(values, info.block, axis).take(range(shape[axis]), axis)
    elif fits and values.size == shape[axis]:
        return along_axis(values.reshape(-1), axis, len(shape))
    raise ModelError(
        f"node {printable(info.node.name or info.node.outputs[0].name)} ({info.node.op}): a scale or zero point of "
        f"shape {list(values.shape)} does not fit values of shape {list(shape)} along axis {info.axis}"
    )


def _code_type(node: gs.Node, point: gs.Tensor | None) -> str:
    """Name of the codes' element type: of the input (DQ), the zero point, or the attribute (Q); uint8 by default."""
    tensors = [node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0], point]
    for tensor in tensors:
        if tensor is None:
            continue
        values = constant_values(tensor)
        if values is not None:
            return values.dtype.name
        if tensor.dtype is not None:
            kind = tensor.dtype
            return (onnx.helper.tensor_dtype_to_np_dtype(kind) if isinstance(kind, int) else np.dtype(kind)).name
    if node.op == "QuantizeLinear" and node.attrs.get("output_dtype"):
        return onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["output_dtype"])).name
    return "uint8"


def _equal(a: NDArray | None, b: NDArray | None) -> bool:
    return a is not None and b is not None and (a.shape == b.shape or 1 in (a.size, b.size)) and bool(np.all(a == b))
