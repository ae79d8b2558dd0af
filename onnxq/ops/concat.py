"""Concat2 … Concat8: tensors of different scales one after the other, each rescaled on its own (HAWQ-V3, eq. 10)."""

from __future__ import annotations

from onnxq.ops.schema import ANY_WIDTH, Attribute, Input, Output, Schema
from onnxq.ops.snippets import RESCALE_NOTE, RESULT, centred, multiplier, saturated, shift, shifted, times

COUNTS = range(2, 9)


def _part(i: int) -> str:
    return f"""
    b_{i} = Gather <axis = 0> (multiplier, int64_{i})
    c_{i} = Gather <axis = 0> (shift, int64_{i})
    zero_point_{i} = Gather <axis = 0> (zero_points, int64_{i})
    {centred(f"x_{i}", f"zero_point_{i}")}
    {times(f"x_{i}_centred", f"b_{i}", f"x_{i}_term")}
    {shifted(f"x_{i}_term", f"c_{i}", f"x_{i}_")}"""


def _concat(count: int) -> Schema:
    quotients = ", ".join(f"x_{i}_quotient" for i in range(count))
    return Schema(
        f"Concat{count}",
        "Concatenation of tensors, each with its own scale.",
        (
            multiplier(f"[{count}]"),
            shift(f"[{count}]"),
            *(Input(f"x_{i}", ANY_WIDTH, "as y, but along axis", f"part {i}") for i in range(count)),
        ),
        Output("y", ANY_WIDTH, "that of ONNX's Concat", "the parts in order"),
        (
            Attribute("axis", "the axis of y that they lie along; negative counts from the end"),
            Attribute("zero_points", "zero points of the parts", is_list=True, length=count),
            *RESULT,
        ),
        "y = concatenation along axis, over i, of\n"
        "    saturate((((x_i − zero_points[i])·b[i] + 2^(c[i]−1)) >> c[i]) + y_zero_point)",
        "".join(_part(i) for i in range(count))
        + f"\n    joined = Concat <axis: int = @axis> ({quotients})"
        + saturated("joined"),
        (RESCALE_NOTE,),
        page="Concat",
    )


SCHEMAS = tuple(_concat(count) for count in COUNTS)
