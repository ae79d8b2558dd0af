"""Requantize, Add, Sub, Mul and LookupTable: an element of y from one element of each input."""

from __future__ import annotations

from onnxq.ops.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.ops.snippets import (
    AXIS,
    RESCALE_NOTE,
    RESULT,
    X_ZERO_POINT,
    along_axis,
    centred,
    multiplier,
    rescaled,
    shift,
    times,
)

CHANNELS = "[1] or [C]"
VECTORS = "C is the length of y along `axis`; a vector of one value serves every place."
A_AND_B = (Attribute("a_zero_point", "zero point of a", 0), Attribute("b_zero_point", "zero point of b", 0))
BROADCAST = Output("y", ANY_WIDTH, "that of a and b broadcast together as in numpy", "the result")

REQUANTIZE = Schema(
    "Requantize",
    "Another scale, zero point or type for a tensor.",
    (Input("x", ANY_WIDTH, "any", "the values"), multiplier(CHANNELS), shift(CHANNELS)),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (X_ZERO_POINT, AXIS, *RESULT),
    "y = saturate((((x − x_zero_point)·b + 2^(c−1)) >> c) + y_zero_point)          b, c of the place along axis",
    f"""
    y_shape = Shape (x)
    {along_axis("multiplier", "shift")}
    {centred("x", "x_zero_point")}
    {times("x_centred", "multiplier_shaped", "x_term")}
    {rescaled("x_term", "shift_shaped", "y_shape")}""",
    (VECTORS, RESCALE_NOTE),
)


def _sum(name: str, summary: str, sign: str) -> Schema:
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
        "    b_a = a_multiplier, b_b = b_multiplier and c of the place along axis",
        f"""
        {centred("a", "a_zero_point")}
        {centred("b", "b_zero_point")}
        both = Add (a_centred, b_centred)
        y_shape = Shape (both)
        {along_axis("a_multiplier", "b_multiplier", "shift")}
        {times("a_centred", "a_multiplier_shaped", "a_term")}
        {times("b_centred", "b_multiplier_shaped", "b_term")}
        total = {name} (a_term, b_term)
        {rescaled("total", "shift_shaped", "y_shape")}""",
        (VECTORS, "The two terms share the shift and the rounding (HAWQ-V3, eq. 9).", RESCALE_NOTE),
    )


ADD = _sum("Add", "Sum of two tensors, each with its own scale.", "+")
SUB = _sum("Sub", "Difference of two tensors, each with its own scale.", "−")

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
    {centred("a", "a_zero_point")}
    {centred("b", "b_zero_point")}
    products = Mul (a_centred, b_centred)
    y_shape = Shape (products)
    {times("products", "multiplier", "term")}
    {rescaled("term", "shift", "y_shape")}""",
    (RESCALE_NOTE,),
)

LOOKUP_TABLE = Schema(
    "LookupTable",
    "Any function of one 8-bit value: Sigmoid, SiLU, HardSwish, GELU, Tanh, LeakyRelu and others, exact.",
    (
        Input("x", EIGHT_BIT, "any", "the values"),
        Input("table", EIGHT_BIT, "[256]", "the results, for x from the least value of its type on", constant=True),
    ),
    Output("y", EIGHT_BIT, "the shape of x", "the result, of the table's type"),
    (),
    "y = table[x − x_min]          x_min: 0 for uint8, −128 for int8",
    """
    x_128 = CastLike (int32_128, x)
    x_wrapped = Cast <to = 6> (x_128)
    x_min = Min (x_wrapped, int32_0)
    x_int = Cast <to = 6> (x)
    index = Sub (x_int, x_min)
    y = Gather <axis = 0> (table, index)""",
)

SCHEMAS = (REQUANTIZE, ADD, SUB, MUL, LOOKUP_TABLE)
