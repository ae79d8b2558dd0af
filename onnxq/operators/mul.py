"""Mul: product of two tensors, element by element."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers, centred, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.layouts import Elementwise
from onnxq.operators.base.schema import EIGHT_BIT, Input, Schema
from onnxq.operators.base.signature import A_AND_B, BROADCAST, RESCALE_NOTE, RESULT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec

MUL = Schema(
    "Mul",
    "Product of two tensors, element by element.",
    (
        Input("a", EIGHT_BIT, "any", "first factor"),
        Input("b", EIGHT_BIT, "any", "second factor"),
        multiplier("[1]"),
        shift("[1]"),
    ),
    BROADCAST,
    (*A_AND_B, *RESULT),
    "y = saturate((((a − a_zero_point)·(b − b_zero_point)·multiplier + 2^(c−1)) >> c) + y_zero_point)",
    f"""
    {body.centred("a", "a_zero_point")}
    {body.centred("b", "b_zero_point")}
    products = Mul (a_centred, b_centred)
    y_shape = Shape (products)
    {body.times("products", "multiplier", "term")}
    {body.rescaled("term", "shift", "y_shape")}""",
    (RESCALE_NOTE,),
)


def mul(
    a: Integers,
    b: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int,
    b_zero_point: int,
    **result: int,
) -> Integers:
    """Rescaled product, element by element: a, b 8-bit, broadcast as in NumPy; multiplier, shift [1]."""
    product = np.asarray(centred(a, a_zero_point) * centred(b, b_zero_point))
    return rescaled([product], [multiplier], shift, **result).reshape(product.shape)


OPERATOR = OperatorSpec(MUL, mul, Elementwise(("a", "b")), parameters=("b", "a"))
