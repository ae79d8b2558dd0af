"""ReduceMean."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, BYTES, Case, Draw, OperatorCases, Shape, with_
from support.cases.operators._windows import ones, pools


def reduce_mean(draw: Draw, shape: Shape, *, x: str = "uint8", y: str = "uint8", **attributes: Any) -> Case:
    arrays = {"x": draw.tensor(x, shape, 2**12), **draw.scalars(31, 34, 38)}
    return Case("ReduceMean", arrays, attributes | {"x_zero_point": draw.zero_point(x)} | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [reduce_mean(draw, (2, 7, 7, 33), x="int8", axes=(1, 2))]


def small(draw: Draw) -> list[Case]:
    return [reduce_mean(draw, (2, 3, 4, 5), axes=(1, 2), keepdims=0)]


def bodies() -> Iterator[Case]:
    for axes, x in itertools.product([(1, 2), (0,), (2, 3), (1,), (0, 1, 2, 3), (3,)], ALL):
        draw = Draw(12)
        for shape, y in zip(((2, 3, 4, 5), (1, 7, 7, 3), (0, 3, 4, 5), (3, 2, 5, 4)), ALL, strict=True):
            for attributes in ({}, {"keepdims": 1}, {"keepdims": 0}):
                yield reduce_mean(draw, shape, x=x, y=y, axes=axes, **attributes)


def means() -> list[Case]:
    draw = Draw(3)
    cases = []
    for x in ALL:
        for axes in ((1, 2), (0,), (2, 3), (1,), (0, 1, 2, 3), (3,), (0, 1), (1, 2, 3)):
            for shape, y in itertools.product(((2, 3, 4, 5), (1, 7, 7, 3), (0, 3, 4, 5), (2, 7, 7, 131)), ALL):
                cases += [
                    reduce_mean(draw, shape, x=x, y=y, axes=axes, **a) for a in ({}, {"keepdims": 1}, {"keepdims": 0})
                ]
        cases += [
            reduce_mean(draw, (3, 14, 14, 700), x=x, axes=(1, 2)),
            reduce_mean(draw, (300, 4, 900), x=x, axes=(2,)),
        ]
        tall = reduce_mean(draw, (2, 1100, 40), x=x, y="int32", axes=(1,))  # sums of bytes that leave 16 bits
        ends = (0, 255) if x == "uint8" else (-128, 127)
        cases += [with_(tall, {"x": np.full((2, 1100, 40), end, x)}) for end in ends]
        cases += [reduce_mean(draw, (3, 0, 5), x=x, axes=(1,)), reduce_mean(draw, (1200,), x=x, axes=(0,), keepdims=0)]
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shape, _ = draw(pools())
    values = Draw(draw(st.integers(0, 2**32)))
    first = draw(st.integers(0, 3))
    axes = tuple(range(first, draw(st.integers(first, 3)) + 1))
    return reduce_mean(values, shape, x=draw(st.sampled_from(ALL)), y=draw(st.sampled_from(ALL)), axes=axes)


MEAN = reduce_mean(Draw(6), (1, 4, 4, 2), axes=(1, 2))


CASES = OperatorCases(
    nodes,
    small,
    {"axes": bodies},
    {"means": means},
    drawn(),
    refused=[
        (with_(MEAN, {"multiplier": ones(2)}), "multiplier must be one value, got 2"),
        (with_(MEAN, axes=(1, 3)), "axes must be consecutive and not negative, they are [1,3]"),
        (with_(MEAN, keepdims=2), "keepdims must be 0 or 1, not 2"),
        (with_(MEAN, axes=(2**63 - 1,)), "axes must be consecutive and not negative"),
        (with_(MEAN, axes=(-2, -1)), "and not negative, they are [-2,-1]"),
    ],
    refused_inputs=[
        (with_(MEAN, {"x": np.zeros((4, 4), np.uint8)}), "axis 2 is out of range for x of rank 2"),
    ],
    moves=[
        (
            f"own.ReduceMean<{BYTES}, axes=[2,3]>(f, mul, sh)",
            "uint8[2,4,1,1]",
            "int32[1] mul, int32[1] sh",
            {"axes": [1, 2]},
        ),
        (
            f"own.ReduceMean<{BYTES}, axes=[1]>(f, mul, sh)",
            "uint8[2,1,6,5]",
            "int32[1] mul, int32[1] sh",
            {"axes": [3]},
        ),
    ],
)
