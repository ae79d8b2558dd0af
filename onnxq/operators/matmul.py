"""MatMul: matrix product of two activations."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers, accumulated, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.operators.base.signature import RESCALE_NOTE, RESULT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec

MATMUL = Schema(
    "MatMul",
    "Matrix product of two activations, with rescale and saturation.",
    (
        Input("a", EIGHT_BIT, "[..., M, K]", "left factor"),
        Input("b", EIGHT_BIT, "[..., K, N]", "right factor"),
        multiplier("[1]"),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "[..., M, N]", "the result; the leading axes broadcast as in NumPy"),
    (
        Attribute("a_zero_point", "zero point of a, a value of its type", 0),
        Attribute("b_zero_point", "zero point of b, a value of its type", 0),
        *RESULT,
    ),
    "acc[..., m, n] = sum over k of (a[..., m, k] − a_zero_point)·(b[..., k, n] − b_zero_point)\n"
    "y = saturate(((acc·b + 2^(c−1)) >> c) + y_zero_point)",
    body.unsigned("a") + body.unsigned("b") + "\n    acc = MatMulInteger (a_u8, b_u8, a_zp, b_zp)" + body.ACC_RESCALED,
    (
        "Both factors have rank 2 or more.",
        "acc is int32. If the length of the sums is known, lowering proves that it cannot overflow; otherwise the "
        "kernel rejects sums that could overflow at run time, and the function body wraps.",
        RESCALE_NOTE,
    ),
)


def matmul(
    a: Integers,
    b: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int,
    b_zero_point: int,
    **result: int,
) -> Integers:
    """Product of two activations: a [..., M, K], b [..., K, N], 8-bit; leading axes broadcast; multiplier, shift [1].

    Raises NumericError if an accumulator exceeds int32.
    """
    products = (a.astype(np.float64) - a_zero_point) @ (b.astype(np.float64) - b_zero_point)
    acc = accumulated(products, "the matrix product")
    return rescaled([acc], [multiplier], shift, **result)


OPERATOR = OperatorSpec(MATMUL, matmul, None, "row")
