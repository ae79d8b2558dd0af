"""LookupTable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from support.cases.operators import EIGHT, Case, Draw, OperatorCases, Shape, U, ints, with_
from support.cases.operators._pairs import MANY


def lookup_table(draw: Draw, shape: Shape, *, x: str = "uint8", y: str = "uint8") -> Case:
    return Case("LookupTable", {"x": draw.tensor(x, shape), "table": draw.tensor(y, (256,))}, {})


def nodes(draw: Draw) -> list[Case]:
    return [lookup_table(draw, (5, 60), x="int8")]


def small(draw: Draw) -> list[Case]:
    return [lookup_table(draw, (2, 3), x="int8")]


def bodies() -> Iterator[Case]:
    for x, y, shape in itertools.product(EIGHT, EIGHT, ((2, 30, 40), (), (0, 4))):
        yield lookup_table(Draw(14), shape, x=x, y=y)


def tables() -> list[Case]:
    draw = Draw(4)
    shapes = ((), (0, 4), (1,), (63,), (64,), (65,), (2, 30, 41), MANY)
    return [lookup_table(draw, s, x=x, y=y) for s in shapes for x in EIGHT for y in EIGHT]


LOOKUP = lookup_table(Draw(8), (5,))


CASES = OperatorCases(
    nodes,
    small,
    {"shapes": bodies},
    {"tables": tables},
    refused=[
        (with_(LOOKUP, {"table": np.zeros(255, np.uint8)}), "LookupTable: table must be a vector of 256 values"),
        (with_(LOOKUP, {"x": ints(1, 2)}), "LookupTable: x must be uint8 or int8, not int32"),
    ],
    moves=[
        ("own.LookupTable(f, other)", U, "uint8[256] other", {}),
    ],
)
