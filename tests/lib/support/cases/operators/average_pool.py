"""AveragePool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, Case, Draw, OperatorCases, Shape, with_
from support.cases.operators._windows import BODY_WINDOWS, SHAPES, UNEVEN, WINDOWS, ones, pools


def average_pool(
    draw: Draw, shape: Shape, *, x: str = "uint8", y: str = "uint8", lengths: Shape = (1,), **attributes: Any
) -> Case:
    """lengths: the shape of multiplier and shift, [1] or [OH, OW, 1]."""
    arrays = {
        "x": draw.tensor(x, shape, 2**12),
        "multiplier": draw.multiplier(lengths),
        "shift": draw.shift(lengths, 34, 38),
    }
    return Case("AveragePool", arrays, attributes | {"x_zero_point": draw.zero_point(x)} | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [average_pool(draw, (2, 6, 7, 70), **UNEVEN)]


def small(draw: Draw) -> list[Case]:
    return [average_pool(draw, (2, 6, 7, 3), x="int32", kernel_shape=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1))]


def bodies() -> Iterator[Case]:
    for window, x in itertools.product(BODY_WINDOWS, ALL):
        draw = Draw(11)
        for shape, y in zip(((2, 6, 7, 3), (1, 6, 7, 1), (0, 6, 7, 3), (1, 6, 8, 5)), ALL, strict=True):
            case = average_pool(draw, shape, x=x, y=y, **window)
            yield case
            places = case.expected().shape[1:3]
            yield average_pool(draw, shape, x=x, y=y, lengths=(*places, 1), **window)


def averages() -> list[Case]:
    draw = Draw(1)
    cases = []
    for window in WINDOWS:
        for x in ALL:
            for i, shape in enumerate(SHAPES):
                y = ALL[i % len(ALL)]
                case = average_pool(draw, shape, x=x, y=y, **window)
                cases.append(case)
                places = case.expected().shape[1:3]
                if all(places):
                    cases.append(average_pool(draw, shape, x=x, y=y, lengths=(*places, 1), **window))
    wide = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    cases.append(average_pool(draw, (2, 40, 50, 64), **wide))
    uneven = average_pool(draw, (1, 6, 7, 3), lengths=(6, 7, 1), **wide)
    cases.append(replace(uneven, arrays=uneven.arrays | {"shift": np.array([35], np.int32)}))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shape, window = draw(pools())
    values = Draw(draw(st.integers(0, 2**32)))
    return average_pool(values, shape, x=draw(st.sampled_from(ALL)), y=draw(st.sampled_from(ALL)), **window)


AVERAGE = average_pool(Draw(5), (1, 4, 4, 2), kernel_shape=(2, 2))


CASES = OperatorCases(
    nodes,
    small,
    {"windows": bodies},
    {"averages": averages},
    drawn(),
    refused=[
        (with_(AVERAGE, pads=(0, 0, -1, 0)), "pads must be 4 integers from 0 to 2147483647, not [0,0,-1,0]"),
        (with_(AVERAGE, {"multiplier": ones(3)}), "multiplier must have shape [1] or [OH, OW, 1], not [3]"),
        (
            with_(AVERAGE, {"multiplier": ones(3, 3, 1), "shift": ones(3, 2, 1)}),
            "multiplier and shift have shapes [3,3] and [3,2]",
        ),
    ],
    refused_inputs=[
        (
            with_(AVERAGE, {"multiplier": ones(2, 2, 1)}),
            "multiplier and shift have [2,2] positions, y has shape [1,3,3,2]",
        ),
    ],
)
