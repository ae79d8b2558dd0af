"""MaxPool: the largest value of each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from onnxq.numeric.integer_output import Integers
from onnxq.numeric.windows import taps
from onnxq.operators.base.schema import EIGHT_BIT, Input, Output, Schema
from onnxq.operators.base.spec import OperatorSpec
from onnxq.operators.base.windows import PLACES, WINDOW, Y_SHAPE, over_windows

# Not built from ONNX's MaxPool: ReferenceEvaluator's fails for int8 unless a stride or a dilation is more than 1.
MAX_POOL = Schema(
    "MaxPool",
    "Max pooling, channels-last.",
    (Input("x", EIGHT_BIT, "[N, H, W, C]", "activations"),),
    Output("y", EIGHT_BIT, "[N, OH, OW, C]", "the result, type of x; OH and OW as in ONNX's MaxPool without ceil_mode"),
    WINDOW,
    f"y[n, i, j, c] = largest x[n, row, column, c] over kh, kw; padding is the smallest value of x's type\n{PLACES}",
    f"""
    x_128 = CastLike (int32_128, x)
    x_wrapped = Cast <to = 6> (x_128)
    x_least = Min (x_wrapped, int32_0)
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
    """Largest value of each window, channels-last: x 8-bit [N, H, W, C]. Padding is the smallest value of x's type."""
    return reduce(np.maximum, taps(x, kernel_shape, strides, pads, dilations, int(np.iinfo(x.dtype).min)))


OPERATOR = OperatorSpec(MAX_POOL, max_pool, None)
