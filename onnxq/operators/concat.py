"""Concat2 … Concat8: concatenation of tensors of different scales, each rescaled separately (HAWQ-V3, eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.numeric.integer_output import Integers, centred, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.layouts import Joined
from onnxq.operators.base.schema import ANY_WIDTH, Attribute, Input, Output, Schema
from onnxq.operators.base.signature import RESCALE_NOTE, RESULT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec

COUNTS = range(2, 9)


def _part(i: int) -> str:
    return f"""
    b_{i} = Gather <axis = 0> (multiplier, int64_{i})
    c_{i} = Gather <axis = 0> (shift, int64_{i})
    zero_point_{i} = Gather <axis = 0> (zero_points, int64_{i})
    {body.centred(f"x_{i}", f"zero_point_{i}")}
    {body.times(f"x_{i}_centred", f"b_{i}", f"x_{i}_term")}
    {body.shifted(f"x_{i}_term", f"c_{i}", f"x_{i}_")}"""


def _schema(count: int) -> Schema:
    quotients = ", ".join(f"x_{i}_quotient" for i in range(count))
    return Schema(
        f"Concat{count}",
        "Concatenation of tensors, each with its own scale.",
        (
            multiplier(f"[{count}]"),
            shift(f"[{count}]"),
            *(Input(f"x_{i}", ANY_WIDTH, "as y, except along axis", f"part {i}") for i in range(count)),
        ),
        Output("y", ANY_WIDTH, "that of ONNX's Concat", "the parts in order"),
        (
            Attribute("axis", "the axis of y along which they are concatenated; negative counts from the end"),
            Attribute("zero_points", "zero points of the parts", is_list=True, length=count),
            *RESULT,
        ),
        "y = concatenation along axis, over i, of\n"
        "    saturate((((x_i − zero_points[i])·b[i] + 2^(c[i]−1)) >> c[i]) + y_zero_point)",
        "".join(_part(i) for i in range(count))
        + f"\n    joined = Concat <axis: int = @axis> ({quotients})"
        + body.saturated("joined"),
        (RESCALE_NOTE,),
        page="Concat",
    )


def concat(
    multiplier: Integers,
    shift: Integers,
    *parts: Integers,
    axis: int,
    zero_points: Sequence[int],
    **result: int,
) -> Integers:
    """Concat2 … Concat8: the parts, 8-bit, int16 or int32, each rescaled separately (HAWQ-V3, eq. 10).

    multiplier, shift, zero_points: one value per part.
    """
    found = [
        rescaled([centred(x, z)], [b], c, **result)
        for x, z, b, c in zip(parts, zero_points, multiplier, shift, strict=True)
    ]
    return np.concatenate(found, axis)


OPERATORS = tuple(
    OperatorSpec(_schema(count), concat, Joined(tuple(f"x_{i}" for i in range(count)))) for count in COUNTS
)
