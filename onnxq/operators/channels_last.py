"""ChannelsLast: moves elements, computes nothing."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers
from onnxq.operators.base.schema import EIGHT_BIT, Input, Output, Schema
from onnxq.operators.base.spec import OperatorSpec

CHANNELS_LAST = Schema(
    "ChannelsLast",
    "A tensor of 8 bits made channels-last, as the layers read it.",
    (Input("x", EIGHT_BIT, "[N, C, d1, d2, …], of 3 dimensions or more", "the values, channels-first"),),
    Output("y", EIGHT_BIT, "[N, d1, d2, …, C]", "the same values, of x's type"),
    (),
    "y[n, i1, i2, …, c] = x[n, c, i1, i2, …]          ONNX's Transpose with perm = [0, 2, 3, …, rank − 1, 1]",
    """
    batch = Shape <start = 0, end = 1> (x)
    channels = Shape <start = 1, end = 2> (x)
    places = Shape <start = 2> (x)
    count = ReduceProd <keepdims = 1> (places)
    flat_shape = Concat <axis = 0> (batch, channels, count)
    flat = Reshape <allowzero = 1> (x, flat_shape)
    moved = Transpose <perm = [0, 2, 1]> (flat)
    y_shape = Concat <axis = 0> (batch, places, channels)
    y = Reshape <allowzero = 1> (moved, y_shape)""",
    ("`layout-nhwc` creates it from such a Transpose if one of our operators reads the result: its kernel is faster.",),
)


def channels_last(x: Integers) -> Integers:
    """x [N, C, d1, d2, …] as [N, d1, d2, …, C]: 8-bit, of 3 dimensions or more."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


OPERATOR = OperatorSpec(CHANNELS_LAST, channels_last, None)
