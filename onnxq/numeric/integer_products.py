"""Accumulators of integer products: convolutions and products with a matrix.

Sums of products are computed in float64 by BLAS and are exact: every product is an integer below 2¹⁷, and every partial
sum of up to 2³⁶ of them, in any order, an integer below 2⁵³. int64 would be slow: NumPy has no BLAS for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.integer_output import Integers, accumulated
from onnxq.numeric.windows import taps


def convolution(
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
    """Sums of a convolution, channels-last: int64 [N, OH, OW, M].

    x: 8-bit [N, H, W, C]. w: int8 [M, kH, kW, C/group]. bias: int32 [M]. w_zero_point: int8 [1] or [M]. Padding is
    x_zero_point. Computed as one matrix product per element of the window.
    Raises NumericError if a sum exceeds int32.
    """
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
    assert acc is not None, "a window has at least one element"
    return accumulated(acc, "the convolution")


def product(x: Integers, w: Integers, bias: Integers, w_zero_point: Integers, x_zero_point: int) -> NDArray[np.int64]:
    """x · w + bias: int64 [..., N]; x 8-bit [..., K], w int8 [K, N]. Raises NumericError if a sum exceeds int32."""
    products = (x.astype(np.float64) - x_zero_point) @ (w.astype(np.float64) - w_zero_point.astype(np.float64))
    return accumulated(products + bias, "the matrix product")
