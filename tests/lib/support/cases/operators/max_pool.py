"""MaxPool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, Case, Draw, OperatorCases, Shape, with_
from support.cases.operators._windows import BODY_WINDOWS, SHAPES, UNEVEN, WINDOWS, pools


def max_pool(draw: Draw, shape: Shape, *, x: str = "uint8", **attributes: Any) -> Case:
    return Case("MaxPool", {"x": draw.tensor(x, shape)}, attributes)


def nodes(draw: Draw) -> list[Case]:
    return [max_pool(draw, (2, 6, 7, 70), x=x, **UNEVEN) for x in ("int8", "int32")]


def small(draw: Draw) -> list[Case]:
    return [max_pool(draw, (2, 6, 7, 3), kernel_shape=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1))]


def bodies() -> Iterator[Case]:
    for window, x in itertools.product(BODY_WINDOWS, ALL):
        draw = Draw(13)
        for shape in ((2, 6, 7, 3), (0, 6, 7, 3)):
            yield max_pool(draw, shape, x=x, **window)


def maxima() -> list[Case]:
    draw = Draw(2)
    cases = [max_pool(draw, shape, x=x, **window) for shape in SHAPES for window in WINDOWS for x in ALL]
    return [*cases, max_pool(draw, (2, 60, 70, 64), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shape, window = draw(pools())
    values = Draw(draw(st.integers(0, 2**32)))
    return max_pool(values, shape, x=draw(st.sampled_from(ALL)), **window)


MAX = max_pool(Draw(4), (1, 4, 4, 2), kernel_shape=(2, 2))


CASES = OperatorCases(
    nodes,
    small,
    {"windows": bodies},
    {"maxima": maxima},
    drawn(),
    refused=[
        (with_(MAX, {"x": np.ones((1, 4, 4, 2), np.float32)}), "Could not find an implementation for MaxPool"),
        (with_(MAX, kernel_shape=(2,)), "kernel_shape must be 2 integers from 1 to 2147483647, not [2]"),
        (with_(MAX, strides=(0, 1)), "strides must be 2 integers from 1 to 2147483647, not [0,1]"),
        (with_(MAX, dilations=(1, 1, 1)), "dilations must be 2 integers from 1 to 2147483647, not [1,1,1]"),
        (with_(MAX, dilations=(2**62, 1)), "dilations must be 2 integers from 1 to 2147483647"),
        (with_(MAX, pads=(2**63 - 1, 0, 1, 0)), "pads must be 4 integers from 0 to 2147483647"),
    ],
    refused_inputs=[
        (
            with_(MAX, {"x": np.zeros((4, 4, 2), np.uint8)}),
            "x must have 4 dimensions [N, H, W, C], its shape is [4,4,2]",
        ),
    ],
)
