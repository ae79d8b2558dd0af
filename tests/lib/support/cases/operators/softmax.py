"""Softmax."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, EIGHT, Case, Draw, OperatorCases, Shape, U, ints, with_


def softmax(
    draw: Draw, shape: Shape, *, x: str = "uint8", y: str = "uint8", axis: int = -1, scale: float = 0.05
) -> Case:
    """scale: of x; y has about 1/256."""
    table = np.round(np.exp(-scale * np.arange(256)) * 2**20).astype(np.int32)
    arrays = {
        "x": draw.tensor(x, shape),
        "table": table,
        "multiplier": draw.multiplier(1, 16),
        "shift": draw.shift(1, 6, 8),
    }
    return Case("Softmax", arrays, {"axis": axis} | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [softmax(draw, (6, 70))]


def small(draw: Draw) -> list[Case]:
    return [softmax(draw, (2, 3, 20), axis=1)]


def bodies() -> Iterator[Case]:
    for x, y in itertools.product(EIGHT, ALL):
        draw = Draw(15)
        for axis in range(-3, 3):
            yield softmax(draw, (2, 5, 7), x=x, y=y, axis=axis, scale=0.01 if axis < 0 else 0.5)
        yield softmax(draw, (1000,), x=x, y=y, scale=0.0001)
        yield softmax(draw, (0, 4), x=x, y=y)


def softmaxes() -> list[Case]:
    draw = Draw(1)
    cases = []
    for x, y in itertools.product(EIGHT, ALL):
        for shape, axis in (((2, 5, 7), 0), ((2, 5, 7), 1), ((2, 5, 7), -1), ((1000,), 0), ((0, 4), 1), ((3, 1), 1)):
            for scale in (0.5, 0.05, 0.0001):
                cases.append(softmax(draw, shape, x=x, y=y, axis=axis, scale=scale))
        cases += [softmax(draw, (500, 97), x=x, y=y), softmax(draw, (40, 30, 40), x=x, y=y, axis=1)]
        ends = with_(softmax(draw, (4, 300), x=x, y=y), {"x": np.full((4, 300), np.iinfo(x).max, x)})
        ends.arrays["x"][:, 3:5] = np.iinfo(x).min
        cases.append(ends)
    # Constants at their ends, also such as no Softmax has: a table that is not sorted, results beyond any 8-bit scale.
    for b, c in (
        (2**31 - 1, 1),
        (2**31 - 1, 16),
        (2**14 * 4, 2),
        (2**14 * 4 - 1, 2),
        (0, 1),
        (1, 16),
        (3, 1),
        (255, 1),
    ):
        for y in ALL:
            case = softmax(draw, (6, 70), y=y, scale=0.02)
            tables = (
                case.arrays["table"],
                ints(1, *[2**20] * 255),
                ints(*draw.rng.integers(1, 2**20 + 1, 256)),
                ints(7, *[0] * 255),
            )
            cases += [with_(case, {"table": t, "multiplier": ints(b), "shift": ints(c)}) for t in tables]
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    values = Draw(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 90), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 20_000)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    x, y, scale = draw(st.sampled_from(EIGHT)), draw(st.sampled_from(ALL)), draw(st.floats(1e-4, 1.0))
    return softmax(values, shape, x=x, y=y, axis=axis, scale=scale)


SOFTMAX = softmax(Draw(3), (2, 5))


CASES = OperatorCases(
    nodes,
    small,
    {"axes": bodies},
    {"softmaxes": softmaxes},
    drawn(),
    refused=[
        (with_(SOFTMAX, {"x": ints(1, 2)}), "Softmax: x must be uint8 or int8, not int32"),
        (with_(SOFTMAX, {"table": ints(*range(255))}), "Softmax: table must be a vector of 256 values"),
        (with_(SOFTMAX, {"table": ints(*[0] * 256)}), "values from 0 to 1048576, the first one positive"),
        (with_(SOFTMAX, {"table": ints(*[2**20 + 1] * 256)}), "values from 0 to 1048576, the first one positive"),
        (with_(SOFTMAX, {"shift": ints(17)}), "Softmax: shift 17 is not in [1, 16]"),
    ],
    refused_inputs=[
        (with_(SOFTMAX, axis=2), "axis 2 is out of range for x of rank 2"),
    ],
    moves=[
        (
            "own.Softmax<qmin=0, qmax=255, y_type=2, axis=1>(f, exps, mul, sh)",
            U,
            "int32[256] exps, int32[1] mul = {255}, int32[1] sh = {1}",
            {"axis": -1},
        ),
    ],
)
