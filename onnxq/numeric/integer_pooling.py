"""AveragePool, ReduceMean and MaxPool of com.onnxq in NumPy. The divisor of a mean is part of its multiplier.

result: y_zero_point (default 0), qmin, qmax and y_type, as `integer_output.rescaled` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from onnxq.numeric.integer_output import Integers, accumulated, centred, rescaled
from onnxq.numeric.windows import taps


def average_pool(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    x_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Rescaled sums over windows, channels-last: x 8-bit or int32 [N, H, W, C], y [N, OH, OW, C].

    multiplier, shift: [1] or, where the divisor varies by position, [OH, OW, 1]. Padding adds 0.
    Raises NumericError if a sum exceeds int32.
    """
    total = sum(taps(centred(x, x_zero_point), kernel_shape, strides, pads, dilations, 0))
    acc = accumulated(np.asarray(total), "the sum of a window")
    return rescaled([acc], [multiplier], shift, **result)


def reduce_mean(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    axes: Sequence[int],
    keepdims: int = 1,
    x_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Rescaled sums over axes: x 8-bit or int32, multiplier and shift [1]. Raises NumericError if one exceeds int32."""
    total = centred(x, x_zero_point).sum(axis=tuple(axes), keepdims=bool(keepdims))
    acc = accumulated(np.asarray(total), "the sum over the axes")
    y = rescaled([acc], [multiplier], shift, **result)
    return y.reshape(acc.shape)


def max_pool(
    x: Integers,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> Integers:
    """Largest value of each window, channels-last: x 8-bit [N, H, W, C]. Padding holds the least value of x's type."""
    return reduce(np.maximum, taps(x, kernel_shape, strides, pads, dilations, int(np.iinfo(x.dtype).min)))
