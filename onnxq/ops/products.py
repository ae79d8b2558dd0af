"""Gemm, GemmAdd and MatMul: products with constant weights, and of two activations."""

from __future__ import annotations

from onnxq.ops.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.ops.snippets import (
    ACC_AND_RESIDUAL_RESCALED,
    ACC_RESCALED,
    RESCALE_NOTE,
    RESULT,
    UNSIGNED_WEIGHTS,
    X_ZERO_POINT,
    layer_inputs,
    multiplier,
    residual_inputs,
    shift,
    unsigned,
)

ACCUMULATOR = f"""
    {unsigned("x")}
    {UNSIGNED_WEIGHTS}
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
    ACCUMULATOR + ACC_RESCALED,
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
    ACCUMULATOR + ACC_AND_RESIDUAL_RESCALED,
    (*NOTES, "The two terms share the shift and the rounding (HAWQ-V3, eq. 9)."),
)

MATMUL = Schema(
    "MatMul",
    "Matrix product of two activations, with rescale and saturation.",
    (
        Input("a", EIGHT_BIT, "[..., M, K]", "left factor"),
        Input("b", EIGHT_BIT, "[..., K, N]", "right factor"),
        multiplier("[1]"),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "[..., M, N]", "the result; the leading axes broadcast as in numpy"),
    (
        Attribute("a_zero_point", "zero point of a, a value of its type", 0),
        Attribute("b_zero_point", "zero point of b, a value of its type", 0),
        *RESULT,
    ),
    "acc[..., m, n] = sum over k of (a[..., m, k] − a_zero_point)·(b[..., k, n] − b_zero_point)\n"
    "y = saturate(((acc·b + 2^(c−1)) >> c) + y_zero_point)",
    unsigned("a") + unsigned("b") + "\n    acc = MatMulInteger (a_u8, b_u8, a_zp, b_zp)" + ACC_RESCALED,
    (
        "Both factors have rank 2 or more.",
        "acc is int32. Lowering proves that it cannot overflow where the length of the sums is known; else the kernel "
        "refuses sums that could, at run time, and the function body wraps.",
        RESCALE_NOTE,
    ),
)

SCHEMAS = (GEMM, GEMM_ADD, MATMUL)
