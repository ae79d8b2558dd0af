"""Weight ranges and int32 biases."""

from __future__ import annotations

from collections.abc import Sequence
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
# Part of a bias that the scales of a shared weight may cost: half a step where the bias spans 8 bits.
SHARED_ERROR = 2.0**-9


def weight_qparams(w: NDArray, fmt: QuantFormat, axis: int | None, method: str = "max") -> QParams:
    """Quantization parameters of a weight tensor.

    w: floating point. axis: channel axis, None for per-tensor. method: "max" covers the whole range of each
    channel (NVIDIA 2020, table 4: lossless in practice at 8 bits); "mse" shrinks it in steps to the least
    squared error per channel, where clipped weights count CLIPPED_COUNT times.
    A channel of zeros uses the smallest scale of the other channels: with an arbitrary scale the multiplier of its
    rescale would be of a different magnitude. Its codes are 0 where the format has that code.
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
    if not zero.any():
        return best
    scale = best.scale if zero.all() else np.where(zero, best.scale[~zero].min(), best.scale)
    return QParams(scale, np.where(zero, np.clip(0, fmt.qmin, fmt.qmax), best.zero_point), fmt, axis)


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
class BiasReader:
    """What one layer asks of the scales of its weight.

    bias: real values, (channels,); zeros without one. largest: max |w| of each channel, (channels,). input_scale: scale
    of its input activations. max_abs_x: the largest |x − zero_point| among the input's codes. reduction: products per
    sum (K).
    """

    bias: NDArray
    largest: NDArray
    input_scale: float
    max_abs_x: int
    reduction: int


@dataclass(frozen=True)
class BiasFit:
    """Weight parameters for which the int32 bias of every reader provably fits.

    readers: which readers they are for, as indices. widened: for each of them, the channels for which its bias made the
    weight scale grow (docs/arithmetic.md, bias).
    """

    weight: QParams
    readers: tuple[int, ...]
    widened: tuple[tuple[int, ...], ...]


def fit_biases(weight: QParams, readers: Sequence[BiasReader]) -> list[BiasFit]:
    """Widen weight scales until |bias| + reduction · max|x − zp| · max|w| ≤ 2³¹ − 1 for every channel and reader.

    Where the weights of a channel are all zero its scale is arbitrary, so it is derived from the bias. Widening loses a
    little weight resolution in that channel; saturating the bias would be wrong. If K · max|x| · max|w| alone exceeds
    the bound, this cannot be fixed here: the bias may then use all of int32.

    The result are scales that serve every reader of the weight, or several sets of them: a layer for which the others'
    scales would be too coarse gets its own. They may be coarser than what it needs itself by one bit, and by more where
    that costs a small part of its bias (SHARED_ERROR), next to which such weights count for nothing.
    """
    alone = [_fit_together(weight, readers, (i,)) for i in range(len(readers))]
    fits: list[BiasFit] = []
    for i in range(len(readers)):
        for k, fit in enumerate(fits):
            joint = _fit_together(weight, readers, (*fit.readers, i))
            if all(_serves(joint.weight, alone[r].weight, readers[r]) for r in joint.readers):
                fits[k] = joint
                break
        else:
            fits.append(alone[i])
    return fits


def _fit_together(weight: QParams, readers: Sequence[BiasReader], chosen: tuple[int, ...]) -> BiasFit:
    """The smallest scales with which the biases of the chosen readers fit."""
    fmt, is_whole = weight.format, weight.scale.ndim == 0
    max_abs_w = int(np.max(np.maximum(np.abs(fmt.qmax - weight.zero_point), np.abs(fmt.qmin - weight.zero_point))))
    floor, digits = np.zeros(weight.scale.shape), np.full(weight.scale.shape, np.inf)
    is_zero = np.ones(weight.scale.shape, bool)
    widened = []
    for reader in (readers[i] for i in chosen):
        room = INT32_MAX - reader.reduction * reader.max_abs_x * max_abs_w
        if room <= 0:
            room = INT32_MAX
        magnitude = np.abs(reader.bias.astype(np.float64))
        # Below it the bias overflows: one code of slack for rounding, and a little for the product of float32 scales.
        needed = magnitude / (reader.input_scale * max(room - 1, 1)) * (1 + 1e-6)
        # Above it the bias has fewer digits than a weight.
        exact = np.where(magnitude > 0, magnitude / (reader.input_scale * fmt.qmax), np.inf)
        zero = reader.largest == 0
        if is_whole:
            needed = np.broadcast_to(needed.max(initial=0.0), magnitude.shape)
        widened.append(tuple(int(i) for i in np.flatnonzero(needed > weight.scale)))
        floor = np.maximum(floor, needed.max(initial=0.0) if is_whole else needed)
        digits = np.minimum(digits, exact.min(initial=np.inf) if is_whole else exact)
        is_zero = is_zero & (zero.all() if is_whole else zero)
    scale = np.where(is_zero & np.isfinite(digits), digits, weight.scale.astype(np.float64))
    return BiasFit(_with_scale(weight, np.maximum(scale, floor)), chosen, tuple(widened))


def _serves(shared: QParams, own: QParams, reader: BiasReader) -> bool:
    """Whether scales that others have a part in are good enough for a reader."""
    scale, alone = (np.broadcast_to(q.scale, reader.bias.shape).astype(np.float64) for q in (shared, own))
    bias = np.abs(reader.bias.astype(np.float64))
    of_weights = reader.reduction * reader.max_abs_x * np.minimum(reader.largest, scale / 2)
    lost = reader.input_scale * (of_weights + np.where(bias > 0, scale / 2, 0))
    return bool(np.all((scale <= 2 * alone) | (lost <= SHARED_ERROR * bias)))


def _with_scale(weight: QParams, scale: NDArray | float) -> QParams:
    """The same range in other steps. Where they are wider, the zero point of an affine format moves towards 0."""
    fmt, found = weight.format, finite_scale(scale, weight.format.power_of_two)
    zero_point = weight.zero_point
    if not fmt.symmetric:
        # Codes of -128 that all mean 0 would saturate the 16-bit sums of CPUs without VNNI.
        narrower = weight.scale.astype(np.float64) / found
        lowest = np.ceil(fmt.qmin - narrower * (fmt.qmin - zero_point))
        highest = np.floor(fmt.qmax - narrower * (fmt.qmax - zero_point))
        moved = np.clip(np.clip(0, lowest, highest), fmt.qmin, fmt.qmax).astype(np.int64)
        zero_point = np.where((found > weight.scale) & (lowest <= highest), moved, zero_point)
    return QParams(found, zero_point, fmt, weight.axis)


def quantize_bias(bias: NDArray, input_scale: float, weight: QParams) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """int32 codes and float32 scales of a bias: scale = scale_x · scale_w[channel], zero point 0.

    bias: real values, (channels,). Returns (codes, scale), both (channels,) for per-channel weights; the scale is
    a scalar for per-tensor weights.
    """
    scale = np.maximum(np.float32(input_scale) * weight.scale, np.float32(np.finfo(np.float32).tiny))
    q = np.rint(bias.astype(np.float64) / along_axis(scale, 0, 1).astype(np.float64))
    return np.clip(q, -INT32_MAX, INT32_MAX).astype(np.int32), scale.astype(np.float32)
