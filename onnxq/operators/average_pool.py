"""AveragePool: the mean of each window. The divisor of a mean is part of its multiplier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.numeric.integer_output import Integers, accumulated, centred, rescaled
from onnxq.numeric.windows import taps
from onnxq.operators.base import body
from onnxq.operators.base.schema import ANY_WIDTH, Input, Output, Schema
from onnxq.operators.base.signature import RESCALE_NOTE, RESULT, X_ZERO_POINT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec
from onnxq.operators.base.windows import PLACES, WINDOW, Y_SHAPE, over_windows

BY_POSITION = "[1] or [OH, OW, 1]"

AVERAGE_POOL = Schema(
    "AveragePool",
    "Average pooling, channels-last.",
    (Input("x", ANY_WIDTH, "[N, H, W, C]", "activations"), multiplier(BY_POSITION), shift(BY_POSITION)),
    Output("y", ANY_WIDTH, "[N, OH, OW, C]", "the result; OH and OW as in ONNX's AveragePool without ceil_mode"),
    (*WINDOW, X_ZERO_POINT, *RESULT),
    "sum[n, i, j, c'] = sum over kh, kw of (x[n, row, column, c'] − x_zero_point), padding adds 0\n"
    f"{PLACES}\n"
    "y = saturate(((sum·b + 2^(c−1)) >> c) + y_zero_point)          b, c of position (i, j)",
    f"""
    {body.centred("x", "x_zero_point")}
    padding = Identity (pads)
    padded = Pad (x_centred, padding, int64_0, list_1_2)
    {Y_SHAPE}
    {over_windows("ReduceSum", "padded", 1, "sums_of_rows")}
    {over_windows("ReduceSum", "sums_of_rows", 2, "sums")}
    {body.wrapped("sums", "accumulator")}
    {body.times("accumulator", "multiplier", "term")}
    {body.rescaled("term", "shift", "y_shape")}""",
    (
        "The divisor is part of the multiplier. Where it varies with the position (padding that is not counted, "
        "ceil_mode), multiplier and shift have one value per position; ceil_mode itself is lowered into pads.",
        "The sum is int32, modulo 2³²; lowering proves that it cannot overflow.",
        RESCALE_NOTE,
    ),
)


def average_pool(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    x_zero_point: int,
    **result: int,
) -> Integers:
    """Rescaled sums over windows, channels-last: x 8-bit, int16 or int32 [N, H, W, C], y [N, OH, OW, C].

    multiplier, shift: [1] or, where the divisor varies by position, [OH, OW, 1]. Padding adds 0.
    Raises NumericError if a sum exceeds int32.
    """
    total = sum(taps(centred(x, x_zero_point), kernel_shape, strides, pads, dilations, 0))
    acc = accumulated(np.asarray(total), "the sum of a window")
    return rescaled([acc], [multiplier], shift, **result)


OPERATOR = OperatorSpec(AVERAGE_POOL, average_pool, None)
