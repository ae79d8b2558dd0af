"""Softmax in integers, after I-BERT (Kim et al., 2021)."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers, saturated
from onnxq.operators.base import body
from onnxq.operators.base.layouts import AlongAxis
from onnxq.operators.base.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.operators.base.signature import RESULT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec

SOFTMAX = Schema(
    "Softmax",
    "Softmax along an axis.",
    (
        Input("x", EIGHT_BIT, "any, rank at least 1", "the values"),
        Input("table", ("int32",), "[256]", "entry d is round(exp(−s_x·d)·2^20), s_x the scale of x", constant=True),
        multiplier("[1]"),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (Attribute("axis", "the axis that is normalized; negative counts from the end", -1), *RESULT),
    "e = table[max − x]          max: the largest x along axis\n"
    "S = sum of e along axis\n"
    "y = saturate(floor((2·e·b + S·2^c) / (S·2^(c+1))) + y_zero_point)",
    f"""
    x_int = Cast <to = 6> (x)
    axis_list = Unsqueeze (axis, list_0)
    largest = ReduceMax (x_int, axis_list)
    below = Sub (largest, x_int)
    e_int = Gather <axis = 0> (table, below)
    e = Cast <to = 7> (e_int)
    sum = ReduceSum (e, axis_list)
    b_wide = Cast <to = 7> (multiplier)
    b = Squeeze (b_wide, list_0)
    c_wide = Cast <to = 7> (shift)
    c = Squeeze (c_wide, list_0)
    unit = Pow (int64_2, c)
    sum_scaled = Mul (sum, unit)
    e_scaled = Mul (e, b)
    e_twice = Mul (e_scaled, int64_2)
    numerator = Add (e_twice, sum_scaled)
    denominator = Mul (sum_scaled, int64_2)
    quotient = Div (numerator, denominator)
    y_shape = Shape (x)
    reshaped = Reshape <allowzero = 1> (quotient, y_shape)
    {body.saturated("reshaped")}""",
    (
        "1/s_y ≈ b/2^c with c ≤ 16. The quotient is rounded once, half up. Everything fits 64-bit integers for rows of "
        "up to 2²⁵ values.",
    ),
)


def softmax(
    x: Integers, table: Integers, multiplier: Integers, shift: Integers, *, axis: int, **result: int
) -> Integers:
    """Softmax along an axis: e = table[max − x], y = sat(floor(e·b / (S·2^c) + 1/2) + y_zero_point), S = Σ e.

    x: 8-bit, any shape. table: int32 [256], see `numeric.integer_norm.exp_table`. multiplier b, shift c ≤ 16: [1],
    1/s_y ≈ b/2^c. One integer division, so one rounding, half up. Rows have up to 2²⁵ values.
    """
    below = x.max(axis=axis, keepdims=True).astype(np.int64) - x
    e = table[below].astype(np.int64)
    unit = e.sum(axis=axis, keepdims=True) << int(shift.item())
    return saturated((2 * e * int(multiplier.item()) + unit) // (2 * unit), **result)


OPERATOR = OperatorSpec(SOFTMAX, softmax, AlongAxis("x"))
