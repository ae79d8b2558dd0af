"""Gemm and GemmAdd: product with a constant matrix, bias, rescale and, in GemmAdd, the addition that follows it."""

from __future__ import annotations

from onnxq.numeric.integer_output import Integers, centred, rescaled
from onnxq.numeric.integer_products import product
from onnxq.operators.base import body
from onnxq.operators.base.layouts import WeightRows
from onnxq.operators.base.schema import ANY_WIDTH, Attribute, Output, Schema
from onnxq.operators.base.signature import (
    LAYER_PARAMETERS,
    RESCALE_NOTE,
    RESULT,
    X_ZERO_POINT,
    layer_inputs,
    residual_inputs,
)
from onnxq.operators.base.spec import OperatorSpec

ACCUMULATOR = f"""
    {body.unsigned("x")}
    {body.UNSIGNED_WEIGHTS}
    w_zp_int = Cast <to = 6> (w_zero_point)
    w_zp_raised = Add (w_zp_int, int32_128)
    w_zp = Cast <to = 2> (w_zp_raised)
    products = MatMulInteger (x_u8, w_u8, x_zp, w_zp)
    acc = Add (products, bias)"""

INPUTS = layer_inputs("[..., K], rank at least 2", "[K, N]", "N")

ACC_FORMULA = "acc[..., n] = bias[n] + sum over k of (x[..., k] − x_zero_point)·(w[k, n] − w_zero_point[n])"

NOTES = (
    "acc is int32; lowering proves that it cannot overflow.",
    RESCALE_NOTE,
    "b = 2, c = 1 and y_type 6 give the raw accumulator.",
)

GEMM = Schema(
    "Gemm",
    "Product with a constant matrix, with bias, rescale and saturation (fully connected layers).",
    INPUTS,
    Output("y", ANY_WIDTH, "[..., N]", "the result"),
    (X_ZERO_POINT, *RESULT),
    f"{ACC_FORMULA}\ny = saturate(((acc·b + 2^(c−1)) >> c) + y_zero_point)          b, c of column n",
    ACCUMULATOR + body.ACC_RESCALED,
    NOTES,
)

GEMM_ADD = Schema(
    "GemmAdd",
    "Gemm with a residual input that is added before the rounding, each with its own multiplier.",
    (*INPUTS, *residual_inputs("[..., N], the shape of y", "N")),
    GEMM.output,
    (X_ZERO_POINT, Attribute("residual_zero_point", "zero point of residual", 0), *RESULT),
    f"{ACC_FORMULA}\n"
    "y = saturate(((acc·b + (residual − residual_zero_point)·b_r + 2^(c−1)) >> c) + y_zero_point)\n"
    "    b, b_r, c of column n; b_r = residual_multiplier",
    ACCUMULATOR + body.ACC_AND_RESIDUAL_RESCALED,
    (*NOTES, "The two terms share the shift and the rounding (HAWQ-V3, eq. 9)."),
)


def gemm(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    *,
    x_zero_point: int,
    **result: int,
) -> Integers:
    """Product with a constant matrix: x 8-bit [..., K], w int8 [K, N], bias int32 [N], y [..., N].

    multiplier, shift, w_zero_point: [1] or [N]. Raises NumericError if an accumulator exceeds int32.
    """
    acc = product(x, w, bias, w_zero_point, x_zero_point)
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
    x_zero_point: int,
    residual_zero_point: int,
    **result: int,
) -> Integers:
    """`gemm` plus residual, 8-bit, int16 or int32, shape of y, added before the single rounding (HAWQ-V3, eq. 9)."""
    terms = [product(x, w, bias, w_zero_point, x_zero_point), centred(residual, residual_zero_point)]
    return rescaled(terms, [multiplier, residual_multiplier], shift, **result)


LAYOUT = WeightRows("x", "w")
OPERATORS = (
    OperatorSpec(GEMM, gemm, LAYOUT, "row", LAYER_PARAMETERS),
    OperatorSpec(GEMM_ADD, gemm_add, LAYOUT, "row", LAYER_PARAMETERS),
)
