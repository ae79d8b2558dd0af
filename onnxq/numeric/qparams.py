"""Scale and zero point from a real range (NVIDIA 2020, equations 1 to 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.numeric.formats import QuantFormat

# Below the smallest normal float32, runtimes that flush denormals would divide by zero.
SCALE_MIN = float(np.finfo(np.float32).tiny)
SCALE_MAX = float(np.finfo(np.float32).max)
# Beyond this the ends of the grid, scale · (q − zero_point), could be infinite in float32 (rounding up to 2^k can
# double a scale).
RANGE_MAX = SCALE_MAX / 4


@dataclass(frozen=True)
class QParams:
    """Quantization parameters of one tensor.

    scale: float32, shape () for per-tensor or (channels,) for per-channel; finite and > 0.
    zero_point: int64 of the same shape, within [format.qmin, format.qmax].
    axis: the channel axis, None for per-tensor.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    format: QuantFormat
    axis: int | None = None

    def real_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The smallest and largest representable reals, float64, shape of scale."""
        scale = self.scale.astype(np.float64)
        return scale * (self.format.qmin - self.zero_point), scale * (self.format.qmax - self.zero_point)


def qparams_from_range(low: ArrayLike, high: ArrayLike, fmt: QuantFormat, axis: int | None = None) -> QParams:
    """Scale and zero point that cover [low, high] and represent 0 exactly.

    low, high: real bounds, scalars or arrays of shape (channels,); computed in float64.
    Symmetric signed: scale = max(|low|, |high|) / qmax. Symmetric unsigned: scale = high / qmax
    (values below 0 saturate). Affine: the range is widened to include 0, then
    scale = (high − low) / (qmax − qmin), zero_point = round(qmin − low / scale).
    An empty range (all zeros) gives scale 1. The scale is always a finite normal float32 > 0, and every code represents
    a finite float32 (ranges end at RANGE_MAX).
    """
    lo = np.clip(np.asarray(low, np.float64), -RANGE_MAX, 0.0)
    hi = np.clip(np.asarray(high, np.float64), 0.0, RANGE_MAX)
    if fmt.symmetric:
        extent = np.maximum(-lo, hi) if fmt.signed else hi
        scale = finite_scale(extent / fmt.qmax, fmt.power_of_two)
    else:
        scale = finite_scale((hi - lo) / (fmt.qmax - fmt.qmin), fmt.power_of_two)
    if fmt.symmetric:
        zero_point = np.zeros(scale.shape, np.int64)
    else:
        zero_point = np.clip(np.rint(fmt.qmin - lo / scale.astype(np.float64)), fmt.qmin, fmt.qmax).astype(np.int64)
    return QParams(scale, zero_point, fmt, axis)


def finite_scale(scale: ArrayLike, power_of_two: bool = False) -> NDArray[np.float32]:
    """Make any non-negative scale usable: 0 becomes 1, the rest a normal float32, rounded up to 2^k if power_of_two."""
    s = np.asarray(scale, np.float64)
    found: NDArray[np.float32] = np.where(s == 0.0, 1.0, np.clip(s, SCALE_MIN, SCALE_MAX)).astype(np.float32)
    if power_of_two:
        mantissa, exponent = np.frexp(found)  # exact: found = mantissa · 2^exponent, 0.5 ≤ mantissa < 1
        found = np.asarray(np.ldexp(np.float32(1), np.minimum(exponent - (mantissa == 0.5), 127)))
    return found
