"""Quantize and dequantize, exactly as ONNX QuantizeLinear and DequantizeLinear do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.qparams import QParams


def along_axis(values: NDArray, axis: int | None, ndim: int) -> NDArray:
    """Reshape per-channel values (channels,) to broadcast along `axis` of an ndim-dimensional array."""
    if axis is None or values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[axis] = values.size
    return values.reshape(shape)


def quantize(x: NDArray, qparams: QParams) -> NDArray[np.int64]:
    """Codes of x, int64, same shape: saturate(round_half_even(x / scale) + zero_point).

    x: floating point, any shape; divided in float32 as onnxruntime does. ±inf saturates; NaN has no code.
    """
    fmt = qparams.format
    scale = along_axis(qparams.scale, qparams.axis, x.ndim)
    zero_point = along_axis(qparams.zero_point, qparams.axis, x.ndim)
    with np.errstate(over="ignore"):
        steps = np.rint(x.astype(np.float32) / scale)
    # Saturate as floats first: converting a float beyond int64 is undefined.
    q = np.clip(steps, np.float32(fmt.qmin - fmt.qmax), np.float32(fmt.qmax - fmt.qmin))
    return np.clip(q.astype(np.int64) + zero_point, fmt.qmin, fmt.qmax)


def dequantize(q: NDArray, qparams: QParams) -> NDArray[np.float32]:
    """Reals of the codes q, float32, same shape: (q − zero_point) · scale."""
    scale = along_axis(qparams.scale, qparams.axis, q.ndim)
    zero_point = along_axis(qparams.zero_point, qparams.axis, q.ndim)
    return (q.astype(np.int64) - zero_point).astype(np.float32) * scale


def fake_quantize(x: NDArray, qparams: QParams) -> NDArray[np.float32]:
    """Quantize then dequantize: the real values of the codes, float32."""
    return dequantize(quantize(x, qparams), qparams)
