"""Integer tensors: the real values they represent, their types, and how large their values can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import constant_values, producer
from onnxq.graph.qdq import code_range, describe, is_dequantize, pair
from onnxq.graph.refusal import RefusedError
from onnxq.numeric.quantize import along_axis

EIGHT_BIT = ("uint8", "int8")
CODES = (*EIGHT_BIT, "int16")  # int16: of sums that are stored in 16 bits
WEIGHT_TYPES = ("int8", "uint8", "int4", "uint4")
TYPE_NUMBERS = {"uint8": 2, "int8": 3, "int16": 5, "int32": 6}
RANGES = {
    "uint8": (0, 255), "int8": (-128, 127), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1),
}  # fmt: skip


@dataclass
class Integers:
    """An integer tensor: real = scale · (q − zero_point).

    tensor: uint8, int8 or int16 codes, or int32 ("wide"). scale: float64, () or (channels,) along `axis` (never
    negative). low, high: the smallest and the largest q that can occur, int64, () or (channels,).
    """

    tensor: gs.Tensor
    scale: NDArray[np.float64]
    zero_point: int
    axis: int | None
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @property
    def type(self) -> str:
        """uint8, int8, int16 or int32."""
        return str(np.dtype(self.tensor.dtype).name)

    @property
    def wide(self) -> bool:
        """Whether it is int32."""
        return self.type == "int32"

    @property
    def reach(self) -> int:
        """The largest |q − zero_point|."""
        return max(int(np.max(self.high)) - self.zero_point, self.zero_point - int(np.min(self.low)), 0)

    def reals(self) -> tuple[float, float]:
        """The smallest and the largest real number."""
        low = float(np.min(self.scale * (self.low - self.zero_point)))
        return low, float(np.max(self.scale * (self.high - self.zero_point)))

    def scaled(self, factor: NDArray[np.float64], axis: int | None) -> Integers:
        """The same integers, representing reals `factor` (> 0) times as large."""
        return replace(self, scale=self.scale * factor, axis=axis if factor.ndim else self.axis)


@dataclass(frozen=True)
class Codes:
    """What a QuantizeLinear produces: codes of `type`, from qmin to qmax (narrowed by an upstream Relu or Clip)."""

    scale: float
    zero_point: int
    type: str
    qmin: int
    qmax: int

    def code(self, real: float) -> float:
        """round(real / scale) + zero_point, as QuantizeLinear computes it before saturation; infinity stays."""
        if math.isinf(real):
            return real
        with np.errstate(over="ignore"):
            return float(np.rint(np.float32(real) / np.float32(self.scale))) + self.zero_point

    def clipped(self, low: float, high: float) -> Codes:
        """The codes of reals that are first clipped to [low, high] (if low > high, ONNX's Clip returns high)."""
        qmin, qmax = self.qmin, self.qmax
        floor, ceiling = self.code(min(low, high)), self.code(high)
        return replace(self, qmin=int(min(max(floor, qmin), qmax)), qmax=int(max(min(ceiling, qmax), qmin)))

    def same_grid(self, value: Integers) -> bool:
        """Whether the integers have this scale, zero point and type."""
        return (
            self.type == value.type
            and value.axis is None
            and self.zero_point == value.zero_point
            and float(value.scale) == self.scale
        )

    def holds(self, value: Integers) -> bool:
        """Whether the integers are already such codes."""
        return self.same_grid(value) and self.qmin <= int(np.min(value.low)) and int(np.max(value.high)) <= self.qmax


def codes_of(quantize: gs.Node) -> Codes | None:
    """What a QuantizeLinear produces; None if no operator can produce it (type, per-channel or unknown scales)."""
    info = describe(quantize)
    if info.scale is None or info.zero_point is None or info.type not in CODES or info.axis is not None:
        return None
    scale = float(info.scale)
    if not (math.isfinite(scale) and scale > 0):
        return None
    low, high = code_range(info)
    return Codes(scale, int(info.zero_point), info.type, low, high)


def dequantized(node: gs.Node, low: int | None = None, high: int | None = None) -> Integers | None:
    """A DequantizeLinear's input as integers; None if no operator can read it. low, high: known limits."""
    info = describe(node)
    if info.scale is None or info.zero_point is None or info.block or info.type not in RANGES:
        return None
    if not (np.isfinite(info.scale).all() and (info.scale > 0).all()):
        return None
    zero = np.unique(info.zero_point)
    if zero.size != 1:
        return None
    tensor = node.inputs[0]
    if tensor.dtype is None:
        tensor.dtype = np.dtype(info.type)
    least, most = RANGES[info.type]
    least, most = least if low is None else max(low, least), most if high is None else min(high, most)
    axis = info.axis
    if axis is not None and axis < 0:
        shape = tensor.shape
        if shape is None:
            return None
        axis += len(shape)
    return Integers(tensor, info.scale, int(zero[0]), axis, np.asarray(least), np.asarray(most))


@dataclass(frozen=True)
class Weight:
    """A constant in integers. codes, zero_point: int64; scale, zero_point: () or (channels,) along `axis`.

    type: of the codes, one of WEIGHT_TYPES. source: the tensor that they come from, for its name.
    """

    codes: NDArray[np.int64]
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int | None
    type: str
    source: gs.Tensor

    def signed(self) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
        """Codes, zero points and type as kernels expect them: unsigned codes shifted down by half their range."""
        if self.type.startswith("u"):
            half = 128 if self.type == "uint8" else 8
            return self.codes - half, self.zero_point - half, self.type[1:]
        return self.codes, self.zero_point, self.type


def weight_of(tensor: gs.Tensor) -> Weight:
    """The integers of a constant that a DequantizeLinear reads. Raises RefusedError with the reason there are none."""
    node = producer(tensor)
    if node is None or not is_dequantize(node):
        if constant_values(tensor) is not None:
            raise RefusedError("its weight is not quantized")
        raise RefusedError(f"its weight {tensor.name} is computed at run time")
    info = describe(node)
    if info.scale is None or info.zero_point is None:
        raise RefusedError("the scale or zero point of its weight is computed at run time")
    if info.block:
        raise RefusedError(f"its weight has one scale per {info.block} elements")
    if info.type not in WEIGHT_TYPES:
        raise RefusedError(f"its weight is {info.type}, not int8, uint8, int4 or uint4")
    if not (np.isfinite(info.scale).all() and (info.scale > 0).all()):
        raise RefusedError("a scale of its weight is not a finite number above 0")
    source = node.inputs[0]
    codes = constant_values(source)
    if codes is None:
        quantize = pair(node)
        values = constant_values(quantize.inputs[0]) if quantize is not None else None
        if values is None:
            raise RefusedError(f"its weight {tensor.name} is computed at run time")
        assert quantize is not None
        if not describe(quantize).same_scale(info):
            raise RefusedError("the QuantizeLinear and DequantizeLinear of its weight do not match")
        source = quantize.inputs[0]
        codes = _quantized(values, info.scale, info.zero_point, info.axis, code_range(info))
    axis = None if info.axis is None else info.axis % codes.ndim
    return Weight(codes.astype(np.int64), info.scale, info.zero_point, axis, info.type, source)


def _quantized(
    values: NDArray, scale: NDArray, zero_point: NDArray, axis: int | None, ends: tuple[int, int]
) -> NDArray[np.int64]:
    """Codes as QuantizeLinear computes them."""
    scale, zero_point = (along_axis(v, axis, values.ndim) for v in (scale, zero_point))
    steps = np.rint(values.astype(np.float32) / scale.astype(np.float32)).astype(np.float64)
    found: NDArray[np.int64] = np.clip(steps + zero_point, *ends).astype(np.int64)
    return found


def widens(constant: Sequence[int], shape: Sequence[int | str | None]) -> bool:
    """Whether a constant changes, or may change, a tensor's shape by broadcasting: unknown sizes could be 1."""
    return len(constant) > len(shape) or any(
        c not in (1, d) for c, d in zip(reversed(constant), reversed(shape), strict=False)
    )
