"""Requantize."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, BYTES, Case, Draw, OperatorCases, Shape, U


def requantize(
    draw: Draw, shape: Shape, *, x: str = "int32", y: str = "uint8", axis: int = -1, lengths: Shape = (1, 1)
) -> Case:
    """lengths: of multiplier and shift."""
    wide = x == "int32"
    arrays = {
        "x": draw.tensor(x, shape, 2**24),
        "multiplier": draw.multiplier(lengths[0]),
        "shift": draw.shift(lengths[1], 44 if wide else 28, 50 if wide else 32),
    }
    return Case("Requantize", arrays, {"x_zero_point": draw.zero_point(x), "axis": axis} | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [
        requantize(draw, (3, 4, 50), axis=1, lengths=(4, 4)),
        requantize(draw, (500,), x="uint8", y="int8"),
    ]


def small(draw: Draw) -> list[Case]:
    return [requantize(draw, (2, 3, 4), axis=1, lengths=(3, 3))]


def bodies() -> Iterator[Case]:
    for x, y in itertools.product(ALL, ALL):
        draw = Draw(9)
        for axis in range(-3, 3):
            channels = (2, 3, 4)[axis]
            lengths = (channels, 1 if axis < 0 else channels)
            yield requantize(draw, (2, 3, 4), x=x, y=y, axis=axis, lengths=lengths)
        for shape in ((), (0, 3), (1,)):
            yield requantize(draw, shape, x=x, y=y)


def types() -> list[Case]:
    """Every pair of types, every axis, and several shapes."""
    cases = []
    draw = Draw(1)
    for x in ALL:
        for y in ALL:
            for axis in (0, 1, 2, 3, -1, -2, -3, -4):
                channels = (2, 3, 17, 35)[axis]
                lengths = (channels, 1 if axis < 0 else channels)
                cases.append(requantize(draw, (2, 3, 17, 35), x=x, y=y, axis=axis, lengths=lengths))
            cases += [requantize(draw, s, x=x, y=y) for s in ((), (0, 3), (1,), (63,), (5, 1, 333), (300, 700))]
            cases.append(requantize(draw, (400, 601), x=x, y=y, lengths=(601, 1)))
            cases.append(requantize(draw, (1, 5, 1), x=x, y=y, lengths=(1, 1), axis=1))
    return cases


@st.composite
def rescales(draw: st.DrawFn) -> Case:
    """Every value with its own multiplier and shift."""
    values = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-300, 300))
    multipliers = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2**30, 2**31 - 1]))
    shifts = st.one_of(st.integers(1, 62), st.sampled_from([1, 31, 32, 33, 62]))
    terms = draw(st.lists(st.tuples(values, multipliers, shifts), min_size=1, max_size=200))
    x, b, c = (np.array(column, np.int32) for column in zip(*terms, strict=True))
    result = Draw(draw(st.integers(0, 2**32))).result(draw(st.sampled_from(ALL)))
    return Case("Requantize", {"x": x, "multiplier": b, "shift": c}, {"axis": 0} | result)


CASES = OperatorCases(
    nodes,
    small,
    {"types": bodies},
    {"types": types},
    drawn_bodies=rescales(),
    moves=[
        (f"own.Requantize<{BYTES}>(f, mul, sh)", U, "int32[1] mul, int32[1] sh", {}),
        (f"own.Requantize<{BYTES}, axis=1>(f, mul, sh)", U, "int32[4] mul, int32[4] sh", {"axis": -1}),
        (f"own.Requantize<{BYTES}, axis=-1>(f, mul, sh)", U, "int32[5] mul, int32[1] sh", {"axis": 2}),
    ],
)
