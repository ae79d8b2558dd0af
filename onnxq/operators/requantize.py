"""Requantize: a change of scale, zero point or type."""

from __future__ import annotations

from onnxq.numeric.integer_output import Integers, aligned, centred, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.layouts import Elementwise
from onnxq.operators.base.schema import ANY_WIDTH, Input, Output, Schema
from onnxq.operators.base.signature import (
    AXIS,
    CHANNELS,
    RESCALE_NOTE,
    RESULT,
    VECTORS,
    X_ZERO_POINT,
    multiplier,
    shift,
)
from onnxq.operators.base.spec import OperatorSpec

REQUANTIZE = Schema(
    "Requantize",
    "Another scale, zero point or type for a tensor.",
    (Input("x", ANY_WIDTH, "any", "the values"), multiplier(CHANNELS), shift(CHANNELS)),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (X_ZERO_POINT, AXIS, *RESULT),
    "y = saturate((((x − x_zero_point)·b + 2^(c−1)) >> c) + y_zero_point)          b, c of the index along axis",
    f"""
    y_shape = Shape (x)
    {body.along_axis("multiplier", "shift")}
    {body.centred("x", "x_zero_point")}
    {body.times("x_centred", "multiplier_shaped", "x_term")}
    {body.rescaled("x_term", "shift_shaped", "y_shape")}""",
    (VECTORS, RESCALE_NOTE),
)


def requantize(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    x_zero_point: int,
    axis: int,
    **result: int,
) -> Integers:
    """A new scale, zero point or type: x 8 to 32 bits, any shape; multiplier, shift [1] or [C] along `axis`."""
    b, c = (aligned(v, axis, x.ndim) for v in (multiplier, shift))
    return rescaled([centred(x, x_zero_point)], [b], c, **result).reshape(x.shape)


OPERATOR = OperatorSpec(REQUANTIZE, requantize, Elementwise(("x",), vectors=("multiplier", "shift")))
