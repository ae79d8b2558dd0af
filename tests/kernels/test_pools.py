"""AveragePool, MaxPool and ReduceMean on every tier, against exact integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.execution import runtime
from support.cases.operator_cases import Case, Draw
from support.kernel_runs import Bundle, bundle, check, chosen, lone, needs_library, on_every_tier, refusal, run_refusal

pytestmark = needs_library

EIGHT = ("uint8", "int8")
ALL = ("uint8", "int8", "int32")
WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": (3, 3)},
    {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"kernel_shape": (2, 3), "pads": (1, 1, 1, 1), "dilations": (2, 1)},
    {"kernel_shape": (1, 1), "strides": (2, 2)},
    {"kernel_shape": (1, 3), "strides": (1, 2)},
    {"kernel_shape": (6, 7)},
    {"kernel_shape": (1, 2), "pads": (3, 2, 3, 2)},  # some windows hold nothing but padding
    {"kernel_shape": (2, 2), "pads": (5, 0, 0, 9), "dilations": (5, 4)},
]
SHAPES = ((2, 6, 7, 3), (1, 6, 7, 1), (0, 6, 7, 3), (1, 6, 7, 64), (2, 7, 8, 100), (2, 6, 7, 0))


def averages() -> list[Case]:
    draw = Draw(1)
    cases = []
    for window in WINDOWS:
        for x in ALL:
            for i, shape in enumerate(SHAPES):
                y = ALL[i % 3]
                case = draw.average_pool(shape, x=x, y=y, **window)
                cases.append(case)
                places = case.expected().shape[1:3]
                if all(places):
                    cases.append(draw.average_pool(shape, x=x, y=y, lengths=(*places, 1), **window))
    wide = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    cases.append(draw.average_pool((2, 40, 50, 64), **wide))
    uneven = draw.average_pool((1, 6, 7, 3), lengths=(6, 7, 1), **wide)
    cases.append(replace(uneven, arrays=uneven.arrays | {"shift": np.array([35], np.int32)}))
    return cases


def maxima() -> list[Case]:
    draw = Draw(2)
    cases = [draw.max_pool(shape, x=x, **window) for shape in SHAPES for window in WINDOWS for x in EIGHT]
    return [*cases, draw.max_pool((2, 60, 70, 64), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))]


def means() -> list[Case]:
    draw = Draw(3)
    cases = []
    for x in ALL:
        for axes in ((1, 2), (0,), (2, 3), (1,), (0, 1, 2, 3), (3,), (0, 1), (1, 2, 3)):
            for shape, y in zip(((2, 3, 4, 5), (1, 7, 7, 3), (0, 3, 4, 5), (2, 7, 7, 131)), ALL + EIGHT, strict=False):
                cases += [
                    draw.reduce_mean(shape, x=x, y=y, axes=axes, **a) for a in ({}, {"keepdims": 1}, {"keepdims": 0})
                ]
        cases += [draw.reduce_mean((3, 14, 14, 700), x=x, axes=(1, 2)), draw.reduce_mean((300, 4, 900), x=x, axes=(2,))]
        tall = draw.reduce_mean((2, 1100, 40), x=x, y="int32", axes=(1,))  # sums of bytes that leave 16 bits
        ends = (0, 255) if x == "uint8" else (-128, 127)
        cases += [with_(tall, {"x": np.full((2, 1100, 40), end, x)}) for end in ends]
        cases += [draw.reduce_mean((3, 0, 5), x=x, axes=(1,)), draw.reduce_mean((1200,), x=x, axes=(0,), keepdims=0)]
    return cases


def with_(case: Case, arrays: dict[str, np.ndarray] | None = None, **attributes: Any) -> Case:
    return replace(case, arrays=case.arrays | (arrays or {}), attributes=case.attributes | attributes)


MAX = Draw(4).max_pool((1, 4, 4, 2), kernel_shape=(2, 2))
AVERAGE = Draw(5).average_pool((1, 4, 4, 2), kernel_shape=(2, 2))
MEAN = Draw(6).reduce_mean((1, 4, 4, 2), axes=(1, 2))


TABLE: dict[str, Callable[[], list[Case]]] = {f.__name__: f for f in (averages, maxima, means)}


@functools.cache
def cases_of(name: str) -> Bundle:
    return bundle(TABLE[name]())


@on_every_tier
@pytest.mark.parametrize("name", TABLE)
def test_equals_exact_integers(name: str, tier: str) -> None:
    with chosen(tier):
        check(cases_of(name))


def test_a_window_larger_than_the_image_gives_nothing() -> None:
    for case in (with_(MAX, kernel_shape=(5, 2)), with_(AVERAGE, kernel_shape=(5, 2))):
        (y,) = runtime.session(lone(case)).run(None, {"x": case.arrays["x"]})
        assert y.shape == (1, 0, 3, 2)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    values = Draw(draw(st.integers(0, 2**32)))
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, strides, dilations = draw(pairs), draw(pairs), draw(pairs)
    pads = draw(st.tuples(*[st.integers(0, 4)] * 4))
    more = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    size = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) + more[i] for i in (0, 1)]
    shape = (draw(st.integers(0, 2)), *size, draw(st.integers(1, 150)))
    window = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    x, y = draw(st.sampled_from(ALL)), draw(st.sampled_from(ALL))
    op = draw(st.sampled_from(["max", "average", "mean"]))
    if op == "max":
        return values.max_pool(shape, x=EIGHT[x == "int8"], **window)
    if op == "average":
        return values.average_pool(shape, x=x, y=y, **window)
    first = draw(st.integers(0, 3))
    return values.reduce_mean(shape, x=x, y=y, axes=tuple(range(first, draw(st.integers(first, 3)) + 1)))


@on_every_tier
@settings(max_examples=12)
@given(cases=st.lists(drawn(), min_size=1, max_size=6))
def test_drawn_shapes(tier: str, cases: list[Case]) -> None:
    with chosen(tier):
        check(bundle(cases))


def ints(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int32)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(MAX, {"x": ints(1, 4, 4, 2)}), "Could not find an implementation for MaxPool"),  # y has x's type
        (with_(MAX, kernel_shape=(2,)), "kernel_shape must be two positive integers"),
        (with_(MAX, strides=(0, 1)), "strides must be two positive integers"),
        (with_(MAX, dilations=(1, 1, 1)), "dilations must be two positive integers"),
        (with_(AVERAGE, pads=(0, 0, -1, 0)), "pads must be four non-negative integers"),
        (with_(AVERAGE, {"multiplier": ints(3)}), "multiplier must have shape [1] or [OH, OW, 1], not [3]"),
        (
            with_(AVERAGE, {"multiplier": ints(3, 3, 1), "shift": ints(3, 2, 1)}),
            "multiplier and shift have shapes [3,3] and [3,2]",
        ),
        (with_(MEAN, {"multiplier": ints(2)}), "multiplier must be one value, got 2"),
        (with_(MEAN, axes=(1, 3)), "axes must be consecutive and not negative, they are [1,3]"),
        (with_(MEAN, axes=(-2, -1)), "and not negative, they are [-2,-1]"),
    ],
)
def test_refuses_a_node_that_makes_no_sense(case: Case, message: str) -> None:
    assert message in refusal(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            with_(MAX, {"x": np.zeros((4, 4, 2), np.uint8)}),
            "x must have 4 dimensions [N, H, W, C], its shape is [4,4,2]",
        ),
        (
            with_(AVERAGE, {"multiplier": ints(2, 2, 1)}),
            "multiplier and shift have [2,2] positions, y has shape [1,3,3,2]",
        ),
        (with_(MEAN, {"x": np.zeros((4, 4), np.uint8)}), "axis 2 is out of range for x of rank 2"),
    ],
)
def test_refuses_inputs_that_do_not_fit(case: Case, message: str) -> None:
    assert message in run_refusal(case)
