"""LookupTable: any function of one 8-bit value."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers
from onnxq.operators.base.layouts import Elementwise
from onnxq.operators.base.schema import EIGHT_BIT, Input, Output, Schema
from onnxq.operators.base.spec import OperatorSpec

LOOKUP_TABLE = Schema(
    "LookupTable",
    "Any function of one 8-bit value: Sigmoid, SiLU, HardSwish, GELU, Tanh, LeakyRelu and others, exact.",
    (
        Input("x", EIGHT_BIT, "any", "the values"),
        Input("table", EIGHT_BIT, "[256]", "the results, in ascending order of x over its type", constant=True),
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


def lookup_table(x: Integers, table: Integers) -> Integers:
    """table[x − smallest value of x's type]: x 8-bit, any shape; table 8-bit [256]; y has the table's type."""
    return np.asarray(table[x.astype(np.int64) - np.iinfo(x.dtype).min])


OPERATOR = OperatorSpec(LOOKUP_TABLE, lookup_table, Elementwise(("x",)))
