"""Add and Sub: a sum or difference of two tensors, each with its own scale (HAWQ-V3, eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.integer_output import Integers, aligned, centred, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.layouts import Elementwise
from onnxq.operators.base.schema import ANY_WIDTH, Input, Schema
from onnxq.operators.base.signature import (
    A_AND_B,
    AXIS,
    BROADCAST,
    CHANNELS,
    RESCALE_NOTE,
    RESULT,
    VECTORS,
    multiplier,
    shift,
)
from onnxq.operators.base.spec import OperatorSpec


def _schema(name: str, summary: str, sign: str) -> Schema:
    return Schema(
        name,
        summary,
        (
            Input("a", ANY_WIDTH, "any", "first term"),
            Input("b", ANY_WIDTH, "any", "second term"),
            multiplier(CHANNELS, "a_multiplier"),
            multiplier(CHANNELS, "b_multiplier"),
            shift(CHANNELS),
        ),
        BROADCAST,
        (*A_AND_B, AXIS, *RESULT),
        f"y = saturate((((a − a_zero_point)·b_a {sign} (b − b_zero_point)·b_b + 2^(c−1)) >> c) + y_zero_point)\n"
        "    b_a = a_multiplier, b_b = b_multiplier and c of the index along axis",
        f"""
        {body.centred("a", "a_zero_point")}
        {body.centred("b", "b_zero_point")}
        both = Add (a_centred, b_centred)
        y_shape = Shape (both)
        {body.along_axis("a_multiplier", "b_multiplier", "shift")}
        {body.times("a_centred", "a_multiplier_shaped", "a_term")}
        {body.times("b_centred", "b_multiplier_shaped", "b_term")}
        total = {name} (a_term, b_term)
        {body.rescaled("total", "shift_shaped", "y_shape")}""",
        (VECTORS, "The two terms share the shift and the rounding (HAWQ-V3, eq. 9).", RESCALE_NOTE),
    )


ADD = _schema("Add", "Sum of two tensors, each with its own scale.", "+")
SUB = _schema("Sub", "Difference of two tensors, each with its own scale.", "−")


def add(
    a: Integers,
    b: Integers,
    a_multiplier: Integers,
    b_multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int,
    b_zero_point: int,
    axis: int,
    **result: int,
) -> Integers:
    """a + b, each with its own multiplier, one shift and one rounding (HAWQ-V3, eq. 9).

    a, b: 8-bit, int16 or int32, broadcast as in NumPy. a_multiplier, b_multiplier, shift: [1] or [C] along `axis` of y.
    """
    terms = [centred(a, a_zero_point), centred(b, b_zero_point)]
    return _sum(terms, a_multiplier, b_multiplier, shift, axis, result)


def sub(
    a: Integers,
    b: Integers,
    a_multiplier: Integers,
    b_multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int,
    b_zero_point: int,
    axis: int,
    **result: int,
) -> Integers:
    """a − b, otherwise as `add`."""
    terms = [centred(a, a_zero_point), -centred(b, b_zero_point)]
    return _sum(terms, a_multiplier, b_multiplier, shift, axis, result)


def _sum(
    terms: Sequence[NDArray], b_a: NDArray, b_b: NDArray, c: NDArray, axis: int, result: dict[str, int]
) -> Integers:
    shape = np.broadcast_shapes(terms[0].shape, terms[1].shape)
    b_a, b_b, c = (aligned(v, axis, len(shape)) for v in (b_a, b_b, c))
    return rescaled(terms, [b_a, b_b], c, **result).reshape(shape)


LAYOUT = Elementwise(("a", "b"), vectors=("a_multiplier", "b_multiplier", "shift"))
OPERATORS = (
    OperatorSpec(ADD, add, LAYOUT, parameters=("b", "a")),
    OperatorSpec(SUB, sub, LAYOUT, parameters=("b", "a")),
)
