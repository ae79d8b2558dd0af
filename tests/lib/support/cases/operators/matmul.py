"""MatMul."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, EIGHT, Case, Draw, OperatorCases, Shape, with_


def matmul(draw: Draw, a_shape: Shape, b_shape: Shape, *, a: str = "uint8", b: str = "uint8", y: str = "uint8") -> Case:
    arrays = {"a": draw.tensor(a, a_shape), "b": draw.tensor(b, b_shape)}
    zero_points = {"a_zero_point": draw.zero_point(a), "b_zero_point": draw.zero_point(b)}
    return Case("MatMul", arrays | draw.scalars(), zero_points | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [matmul(draw, (2, 1, 9, 33), (3, 33, 5), a="int8")]


def small(draw: Draw) -> list[Case]:
    return [matmul(draw, (2, 1, 3, 4), (5, 4, 6))]


def bodies() -> Iterator[Case]:
    for a, b, y in itertools.product(EIGHT, EIGHT, ALL):
        draw = Draw(6)
        for shapes in (((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4, 5), (2, 5, 3))):
            yield matmul(draw, *shapes, a=a, b=b, y=y)
        yield matmul(draw, (2, 0, 4), (4, 5), a=a, b=b, y=y)


SHAPES = [
    ((3, 4), (4, 5)),
    ((1, 1), (1, 1)),
    ((70, 33), (33, 65)),
    ((2, 3, 4), (4, 5)),
    ((4, 5), (2, 5, 3)),
    ((2, 1, 3, 7), (6, 7, 130)),
    ((3, 1, 2, 9), (1, 4, 9, 17)),
    ((300, 6), (6, 2)),
    ((2, 0, 4), (4, 5)),
    ((0, 3, 4), (4, 5)),
    ((2, 3, 0), (0, 5)),
    ((2, 3, 4), (4, 0)),
    ((4, 97, 64), (4, 64, 97)),
]


def shapes() -> list[Case]:
    draw = Draw(1)
    cases = [matmul(draw, *s, a=a, b=b, y=y) for s in SHAPES for a in EIGHT for b in EIGHT for y in ALL]
    identity = {"multiplier": np.array([2], np.int32), "shift": np.array([1], np.int32)}
    raw = {"y_zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
    for a in EIGHT:
        for b in EIGHT:
            case = matmul(draw, (5, 50), (50, 70), a=a, b=b, y="int32")
            cases.append(replace(case, arrays=case.arrays | identity, attributes=case.attributes | raw))
    for b, c in ((2**31 - 1, 1), (2**31 - 1, 62), (3, 1), (0, 62), (2**30, 32), (2**30, 33)):
        scale = {"multiplier": np.array([b], np.int32), "shift": np.array([c], np.int32)}
        for y in ALL:
            case = matmul(draw, (5, 50), (50, 70), a="int8", b="uint8", y=y)
            cases.append(replace(case, arrays=case.arrays | scale))
    return cases


def long_sums() -> Iterator[Case]:
    """a·b alone is 2.3e9, which leaves int32; with zero points close to the values the sum is small."""
    for y in ALL:
        draw = Draw(2)
        count = 36_000
        for a, b in (("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")):
            case = matmul(draw, (2, count), (count, 3), a=a, b=b, y=y)
            low_a, low_b = np.iinfo(a).max, np.iinfo(b).max
            arrays = {
                "a": draw.rng.integers(low_a - 3, low_a, (2, count), endpoint=True).astype(a),
                "b": draw.rng.integers(low_b - 3, low_b, (count, 3), endpoint=True).astype(b),
            }
            yield with_(case, arrays, a_zero_point=low_a - 1, b_zero_point=low_b - 1)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    m, k, n = (draw(st.integers(0, limit)) for limit in (40, 80, 150))
    stack = draw(st.lists(st.integers(1, 3), max_size=2))
    stacks = []
    for _ in "ab":
        kept = draw(st.lists(st.booleans(), min_size=len(stack), max_size=len(stack)))
        start = draw(st.integers(0, len(stack)))
        stacks.append(tuple(s if keep else 1 for s, keep in zip(stack, kept, strict=True))[start:])
    types = (draw(st.sampled_from(EIGHT)), draw(st.sampled_from(EIGHT)), draw(st.sampled_from(ALL)))
    values = Draw(draw(st.integers(0, 2**32)))
    return matmul(values, (*stacks[0], m, k), (*stacks[1], k, n), a=types[0], b=types[1], y=types[2])


MATMUL = matmul(Draw(3), (2, 3), (3, 4))


def of(a: Shape, b: Shape) -> Case:
    return with_(MATMUL, {"a": np.zeros(a, np.uint8), "b": np.zeros(b, np.uint8)})


CASES = OperatorCases(
    nodes,
    small,
    {"shapes": bodies},
    {"shapes": shapes, "long_sums": long_sums},
    drawn(),
    refused=[
        (with_(MATMUL, {"a": np.zeros((2, 3), np.int32)}), "MatMul: a must be uint8 or int8, not int32"),
        (with_(MATMUL, {"multiplier": np.array([1, 2], np.int32)}), "MatMul: multiplier must be one value, got 2"),
    ],
    refused_inputs=[
        (of((2, 3), (4, 5)), "a has rows of 3 values, b has 4 rows: their shapes are [2,3] and [4,5]"),
        (of((3,), (3, 5)), "a and b must have at least 2 dimensions, their shapes are [3] and [3,5]"),
        (of((2, 2, 3), (3, 3, 5)), "a and b do not broadcast: their shapes are [2] and [3]"),
    ],
)
