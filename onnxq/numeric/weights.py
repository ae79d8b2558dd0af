"""Weight ranges and int32 biases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, finite_scale, qparams_from_range
from onnxq.numeric.quantize import along_axis

INT32_MAX = (1 << 31) - 1
# The least-squared-error search shrinks the range down to this part of the largest |w|, in this many steps.
MSE_SHRINK_MIN = 0.1
MSE_STEPS = 91
MSE_BLOCK = 1 << 15
# How much the squared error of a clipped weight counts: rounding errors cancel in a sum of products, while clipping
# errors all shrink the weights. 3 as in AIMET's "TF-enhanced"; SqueezeNet at 5 and 4 bits: 21.3 and 13.4 dB at the
# logits, 15.7 and 8.3 dB with 1.
CLIPPED_COUNT = 3.0


def weight_qparams(w: NDArray, fmt: QuantFormat, axis: int | None, method: str = "max") -> QParams:
    """Quantization parameters of a weight tensor.

    w: floating point. axis: channel axis, None for per-tensor. method: "max" covers the whole range of each
    channel (NVIDIA 2020, table 4: lossless in practice at 8 bits); "mse" shrinks it in steps to the least
    squared error per channel, where clipped weights count CLIPPED_COUNT times.
    A channel of zeros uses the smallest scale of the other channels: with an arbitrary scale the multiplier of its
    rescale would be of a different magnitude.
    """
    other = None if axis is None else tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    if w.size == 0:
        channels = () if axis is None else (w.shape[axis],)
        return qparams_from_range(np.zeros(channels), np.zeros(channels), fmt, axis)
    lo, hi = w.min(axis=other), w.max(axis=other)
    best = qparams_from_range(lo, hi, fmt, axis)
    if method == "mse":
        best = _least_squared_error(w, lo, hi, fmt, axis)
    zero = (lo == 0) & (hi == 0)
    if axis is None or not zero.any() or zero.all():
        return best
    return QParams(np.where(zero, best.scale[~zero].min(), best.scale), best.zero_point, fmt, axis)


def _least_squared_error(w: NDArray, lo: NDArray, hi: NDArray, fmt: QuantFormat, axis: int | None) -> QParams:
    """The shrunk range per channel whose grid has the least error on w; the widest of equally good ones."""
    channels = np.reshape(w, (1, -1)) if axis is None else np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    trials = [qparams_from_range(lo * s, hi * s, fmt, axis) for s in np.linspace(1.0, MSE_SHRINK_MIN, MSE_STEPS)]
    scale = np.stack([t.scale.reshape(-1) for t in trials])
    zero_point = np.stack([t.zero_point.reshape(-1) for t in trials])
    error = np.zeros(scale.shape)
    # In blocks that stay in the cache through all trials.
    columns = min(channels.shape[1], MSE_BLOCK)
    rows = max(MSE_BLOCK // columns, 1)
    for r in range(0, channels.shape[0], rows):
        for c in range(0, channels.shape[1], columns):
            block = channels[r : r + rows, c : c + columns].astype(np.float32)
            for k in range(MSE_STEPS):
                step, origin = scale[k, r : r + rows, None], zero_point[k, r : r + rows, None]
                codes = np.rint(block / step)
                q = np.clip(codes, (fmt.qmin - origin).astype(np.float32), (fmt.qmax - origin).astype(np.float32))
                clipped = q != codes
                q *= step
                q -= block
                q *= clipped * np.float32(np.sqrt(CLIPPED_COUNT) - 1) + np.float32(1)  # faster than a mask
                error[k, r : r + rows] += np.einsum("ij,ij->i", q, q)
    best = (error.argmin(axis=0), np.arange(channels.shape[0]))
    shape = trials[0].scale.shape
    return QParams(scale[best].reshape(shape), zero_point[best].reshape(shape), fmt, axis)


@dataclass(frozen=True)
class BiasFit:
    """Weight parameters for which the int32 bias provably fits, and the channels that had to be widened.

    widened: indices of the channels whose weight scale was increased (docs/arithmetic.md, bias).
    """

    weight: QParams
    widened: tuple[int, ...]


def fit_bias(
    weight: QParams, zero_channels: NDArray[np.bool_], bias: NDArray, input_scale: float, max_abs_x: int, reduction: int
) -> BiasFit:
    """Widen weight scales until |bias| + reduction · max|x − zp| · max|w| ≤ 2³¹ − 1 for every channel.

    bias: real values, (channels,). zero_channels: channels whose weights are all zero; their scale is arbitrary,
    so it is derived from the bias. input_scale: scale of the input activations. reduction: products per
    sum (K). Widening loses a little weight resolution in that channel; saturating the bias would be wrong.
    If K · max|x| · max|w| alone exceeds the bound, this cannot be fixed here: the bias may then use all of int32.
    """
    fmt = weight.format
    max_abs_w = int(np.max(np.maximum(np.abs(fmt.qmax - weight.zero_point), np.abs(fmt.qmin - weight.zero_point))))
    room = INT32_MAX - reduction * max_abs_x * max_abs_w
    if room <= 0:
        room = INT32_MAX
    magnitude = np.abs(bias.astype(np.float64))
    # One code of slack for rounding, and a small relative slack for the product of float32 scales.
    needed = magnitude / (input_scale * max(room - 1, 1)) * (1 + 1e-6)
    scale = np.broadcast_to(weight.scale, magnitude.shape).astype(np.float64)
    if weight.scale.ndim == 0:
        needed = np.broadcast_to(needed.max(initial=0.0), magnitude.shape)
    from_bias = magnitude / (input_scale * fmt.qmax)
    target = np.where(zero_channels & (magnitude > 0), np.maximum(from_bias, needed), np.maximum(scale, needed))
    widened = tuple(int(i) for i in np.flatnonzero(needed > scale))
    if weight.scale.ndim == 0:
        return BiasFit(_with_scale(weight, target.max(initial=float(weight.scale))), widened)
    return BiasFit(_with_scale(weight, target), widened)


def _with_scale(weight: QParams, scale: NDArray | float) -> QParams:
    return QParams(finite_scale(scale, weight.format.power_of_two), weight.zero_point, weight.format, weight.axis)


def quantize_bias(bias: NDArray, input_scale: float, weight: QParams) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """int32 codes and float32 scales of a bias: scale = scale_x · scale_w[channel], zero point 0.

    bias: real values, (channels,). Returns (codes, scale), both (channels,) for per-channel weights; the scale is
    a scalar for per-tensor weights.
    """
    scale = np.maximum(np.float32(input_scale) * weight.scale, np.float32(np.finfo(np.float32).tiny))
    q = np.rint(bias.astype(np.float64) / along_axis(scale, 0, 1).astype(np.float64))
    return np.clip(q, -INT32_MAX, INT32_MAX).astype(np.int32), scale.astype(np.float32)
