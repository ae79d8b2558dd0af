"""MaxPool: the largest value of each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from onnxq.numeric.integer_output import Integers
from onnxq.numeric.windows import taps
from onnxq.operators.base.schema import ANY_WIDTH, Input, Output, Schema
from onnxq.operators.base.spec import OperatorSpec
from onnxq.operators.base.windows import PLACES, WINDOW, Y_SHAPE, over_windows

# The smallest value of x's type is the least of 0, 2^7, 2^15 and 2^31 once they are wrapped to it. In int32, since
# onnxruntime pads and reduces no int16.
# Not built from ONNX's MaxPool: ReferenceEvaluator's fails for int8 unless a stride or a dilation is more than 1.
MAX_POOL = Schema(
    "MaxPool",
    "Max pooling, channels-last.",
    (Input("x", ANY_WIDTH, "[N, H, W, C]", "activations"),),
    Output("y", ANY_WIDTH, "[N, OH, OW, C]", "the result, type of x; OH and OW as in ONNX's MaxPool without ceil_mode"),
    WINDOW,
    f"y[n, i, j, c] = largest x[n, row, column, c] over kh, kw; padding is the smallest value of x's type\n{PLACES}",
    f"""
    x_2_7 = CastLike (power_7, x)
    x_2_15 = CastLike (power_15, x)
    x_2_31 = CastLike (power_31, x)
    if_int8 = Cast <to = 6> (x_2_7)
    if_int16 = Cast <to = 6> (x_2_15)
    if_int32 = Cast <to = 6> (x_2_31)
    x_least = Min (if_int8, if_int16, if_int32, int32_0)
    x_int = Cast <to = 6> (x)
    padding = Identity (pads)
    padded = Pad (x_int, padding, x_least, list_1_2)
    {Y_SHAPE}
    {over_windows("ReduceMax", "padded", 1, "largest_of_rows")}
    {over_windows("ReduceMax", "largest_of_rows", 2, "largest")}
    shaped = Reshape <allowzero = 1> (largest, y_shape)
    y = CastLike (shaped, x)""",
    ("y has the scale and zero point of x.",),
)


def max_pool(
    x: Integers,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> Integers:
    """Largest value of each window: x 8-bit, int16 or int32 [N, H, W, C]. Padding is the smallest value of x's type."""
    return reduce(np.maximum, taps(x, kernel_shape, strides, pads, dilations, int(np.iinfo(x.dtype).min)))


OPERATOR = OperatorSpec(MAX_POOL, max_pool, None)
