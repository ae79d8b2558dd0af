"""Conv, ConvAdd, Gemm, GemmAdd and MatMul of com.onnxq in NumPy.

Sums of products are taken in float64 by BLAS and are exact: every product is an integer below 2¹⁷, and every partial
sum of up to 2³⁶ of them, in any order, one below 2⁵³. int64 would be slow: NumPy has no BLAS for it.
result: y_zero_point (default 0), qmin, qmax and y_type, as `integer_output.rescaled` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.integer_output import Integers, accumulated, centred, rescaled
from onnxq.numeric.windows import taps


def conv(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    x_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Convolution, channels-last: x [N, H, W, C], w [M, kH, kW, C/group], y [N, OH, OW, M].

    x 8-bit; w int8 (INT4 weights too); bias int32 [M]; multiplier, shift int32 and w_zero_point int8 [1] or [M].
    acc = Σ (x − x_zero_point)(w − w_zero_point[m]) + bias[m], padding adds 0. Raises NumericError if it exceeds int32.
    """
    acc = _conv(x, w, bias, w_zero_point, strides, pads, dilations, group, x_zero_point)
    return rescaled([acc], [multiplier], shift, **result)


def conv_add(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    residual: Integers,
    residual_multiplier: Integers,
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    x_zero_point: int = 0,
    residual_zero_point: int = 0,
    **result: int,
) -> Integers:
    """`conv` plus residual, 8-bit or int32 [N, OH, OW, M], before the one rounding (HAWQ-V3, eq. 9)."""
    acc = _conv(x, w, bias, w_zero_point, strides, pads, dilations, group, x_zero_point)
    terms = [acc, centred(residual, residual_zero_point)]
    return rescaled(
        terms,
        [multiplier, residual_multiplier],
        shift,
        **result,
    )


def gemm(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    *,
    x_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Product with a constant matrix: x 8-bit [..., K], w int8 [K, N], bias int32 [N], y [..., N].

    multiplier, shift, w_zero_point: [1] or [N]. Raises NumericError if an accumulator exceeds int32.
    """
    acc = _gemm(x, w, bias, w_zero_point, x_zero_point)
    return rescaled([acc], [multiplier], shift, **result)


def gemm_add(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    residual: Integers,
    residual_multiplier: Integers,
    *,
    x_zero_point: int = 0,
    residual_zero_point: int = 0,
    **result: int,
) -> Integers:
    """`gemm` plus residual, 8-bit or int32, of y's shape, before the one rounding (HAWQ-V3, eq. 9)."""
    terms = [_gemm(x, w, bias, w_zero_point, x_zero_point), centred(residual, residual_zero_point)]
    return rescaled(
        terms,
        [multiplier, residual_multiplier],
        shift,
        **result,
    )


def matmul(
    a: Integers,
    b: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Product of two activations: a [..., M, K], b [..., K, N], 8-bit; leading axes broadcast; multiplier, shift [1].

    Raises NumericError if an accumulator exceeds int32.
    """
    products = (a.astype(np.float64) - a_zero_point) @ (b.astype(np.float64) - b_zero_point)
    acc = accumulated(products, "the matrix product")
    return rescaled([acc], [multiplier], shift, **result)


def _conv(
    x: Integers,
    w: Integers,
    bias: Integers,
    w_zero_point: Integers,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    x_zero_point: int,
) -> NDArray[np.int64]:
    """The accumulators, [N, OH, OW, M]: for each element of the window the product of its pixels with its weights."""
    m, height, width, inner = w.shape
    weights = w.astype(np.float64) - w_zero_point.reshape(-1, 1, 1, 1).astype(np.float64)
    # [kH · kW, group, C/group, M/group]
    weights = weights.reshape(group, m // group, height * width, inner).transpose(2, 0, 3, 1)
    acc: NDArray[np.float64] | None = None
    pixels = x.astype(np.float64) - x_zero_point
    for tap, matrices in zip(taps(pixels, (height, width), strides, pads, dilations, 0.0), weights, strict=True):
        if acc is None:
            acc = np.broadcast_to(bias.astype(np.float64), (*tap.shape[:3], m)).copy()
        if inner == 1 and m == group:
            acc += tap * matrices[:, 0, 0]
        else:
            by_group = tap.reshape(-1, group, inner).transpose(1, 0, 2)
            acc += np.matmul(by_group, matrices).transpose(1, 0, 2).reshape(acc.shape)
    assert acc is not None, "a window has an element at least"
    return accumulated(acc, "the convolution")


def _gemm(x: Integers, w: Integers, bias: Integers, w_zero_point: Integers, x_zero_point: int) -> NDArray[np.int64]:
    products = (x.astype(np.float64) - x_zero_point) @ (w.astype(np.float64) - w_zero_point.astype(np.float64))
    return accumulated(products + bias, "the matrix product")
