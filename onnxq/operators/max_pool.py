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

# The smallest value of x's type is the least of 0, 128 and 2^31 once they are wrapped to it.
# Not built from ONNX's MaxPool: ReferenceEvaluator's fails for int8 unless a stride or a dilation is more than 1.
MAX_POOL = Schema(
    "MaxPool",
    "Max pooling, channels-last.",
    (Input("x", ANY_WIDTH, "[N, H, W, C]", "activations"),),
    Output("y", ANY_WIDTH, "[N, OH, OW, C]", "the result, type of x; OH and OW as in ONNX's MaxPool without ceil_mode"),
    WINDOW,
    f"y[n, i, j, c] = largest x[n, row, column, c] over kh, kw; padding is the smallest value of x's type\n{PLACES}",
    f"""
    x_128 = CastLike (int32_128, x)
    x_byte = Cast <to = 6> (x_128)
    x_2_31 = CastLike (power_31, x)
    x_word = Cast <to = 6> (x_2_31)
    x_least = Min (x_byte, x_word, int32_0)
    x_min = CastLike (x_least, x)
    padding = Identity (pads)
    padded = Pad (x, padding, x_min, list_1_2)
    {Y_SHAPE}
    {over_windows("ReduceMax", "padded", 1, "largest_of_rows")}
    {over_windows("ReduceMax", "largest_of_rows", 2, "largest")}
    y = Reshape <allowzero = 1> (largest, y_shape)""",
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
    """Largest value of each window: x 8-bit or int32 [N, H, W, C]. Padding is the smallest value of x's type."""
    return reduce(np.maximum, taps(x, kernel_shape, strides, pads, dilations, int(np.iinfo(x.dtype).min)))


OPERATOR = OperatorSpec(MAX_POOL, max_pool, None)
