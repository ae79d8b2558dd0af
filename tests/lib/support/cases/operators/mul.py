"""Mul."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, BYTES, EIGHT, Case, Draw, OperatorCases, Shape, U, ints, with_
from support.cases.operators._pairs import MANY, broadcast_shapes


def mul(draw: Draw, a_shape: Shape, b_shape: Shape, *, a: str = "uint8", b: str = "uint8", y: str = "uint8") -> Case:
    arrays = {"a": draw.tensor(a, a_shape), "b": draw.tensor(b, b_shape)}
    zero_points = {"a_zero_point": draw.zero_point(a), "b_zero_point": draw.zero_point(b)}
    return Case("Mul", arrays | draw.scalars(), zero_points | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [mul(draw, (2, 9, 70), (2, 1, 70), b="int8")]


def small(draw: Draw) -> list[Case]:
    return [mul(draw, (2, 3, 4), (3, 1), y="int8")]


def bodies() -> Iterator[Case]:
    for a, b, y in itertools.product(EIGHT, EIGHT, ALL):
        draw = Draw(7)
        for shapes in (((2, 3), (2, 3)), ((2, 3), (2, 1)), ((3,), ()), ((), ()), ((0, 3), (3,)), ((2, 1, 4), (5, 4))):
            yield mul(draw, *shapes, a=a, b=b, y=y)


def products() -> list[Case]:
    draw = Draw(3)
    shapes = [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((3,), ()), ((), ()), ((0, 3), (3,)), ((2, 1, 4), (5, 4))]
    shapes += [((2, 9, 70), (2, 1, 70)), ((1, 1000), (2, 1)), (MANY, MANY), (MANY, (3, 1, 701))]
    cases = [mul(draw, *s, a=a, b=b, y=y) for s in shapes for a in EIGHT for b in EIGHT for y in ALL]
    for b, c in ((2**31 - 1, 1), (2**31 - 1, 62), (2**31 - 1, 16), (1, 1), (0, 5), (2, 1)):
        for y in ALL:
            case = mul(draw, (256, 1), (256,), a="uint8", b="int8", y=y)
            scale = {"multiplier": np.array([b], np.int32), "shift": np.array([c], np.int32)}
            cases.append(replace(case, arrays=case.arrays | scale))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shapes, _, _ = draw(broadcast_shapes())
    values = Draw(draw(st.integers(0, 2**32)))
    a, b, y = draw(st.sampled_from(EIGHT)), draw(st.sampled_from(EIGHT)), draw(st.sampled_from(ALL))
    return mul(values, *shapes, a=a, b=b, y=y)


CASES = OperatorCases(
    nodes,
    small,
    {"shapes": bodies},
    {"products": products},
    drawn(),
    refused=[
        (with_(mul(Draw(0), (3,), (3,)), {"b": ints(1, 2, 3)}), "Mul: b must be uint8 or int8, not int32"),
        (with_(mul(Draw(0), (3,), (3,)), {"shift": ints(1, 2)}), "Mul: shift must be one value, got 2"),
    ],
    moves=[
        (f"own.Mul<{BYTES}>(f, k, mul, sh)", U, "uint8[1,4,1,1] k, int32[1] mul, int32[1] sh", {}),
        (f"own.Mul<{BYTES}>(k, f, mul, sh)", U, "uint8[6,5] k, int32[1] mul, int32[1] sh", {}),
        (f"own.Mul<{BYTES}>(k, f, mul, sh)", U, "uint8 k, int32[1] mul, int32[1] sh", {}),
    ],
)
