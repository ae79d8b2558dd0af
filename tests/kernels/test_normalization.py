"""Softmax and LayerNorm on every tier, against exact integers."""

from __future__ import annotations

import functools
import itertools
import math
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


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def with_(case: Case, arrays: dict[str, np.ndarray] | None = None, **attributes: Any) -> Case:
    return replace(case, arrays=case.arrays | (arrays or {}), attributes=case.attributes | attributes)


def softmaxes() -> list[Case]:
    draw = Draw(1)
    cases = []
    for x, y in itertools.product(EIGHT, ALL):
        for shape, axis in (((2, 5, 7), 0), ((2, 5, 7), 1), ((2, 5, 7), -1), ((1000,), 0), ((0, 4), 1), ((3, 1), 1)):
            for scale in (0.5, 0.05, 0.0001):
                cases.append(draw.softmax(shape, x=x, y=y, axis=axis, scale=scale))
        cases += [draw.softmax((500, 97), x=x, y=y), draw.softmax((40, 30, 40), x=x, y=y, axis=1)]
        ends = with_(draw.softmax((4, 300), x=x, y=y), {"x": np.full((4, 300), np.iinfo(x).max, x)})
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
            case = draw.softmax((6, 70), y=y, scale=0.02)
            tables = (
                case.arrays["table"],
                ints(1, *[2**20] * 255),
                ints(*draw.rng.integers(1, 2**20 + 1, 256)),
                ints(7, *[0] * 255),
            )
            cases += [with_(case, {"table": t, "multiplier": ints(b), "shift": ints(c)}) for t in tables]
    return cases


def norms() -> list[Case]:
    draw = Draw(2)
    cases = []
    for x, y, center in itertools.product(ALL, ALL, (0, 1)):
        for shape in ((2, 3, 40), (5, 1), (3, 67), (0, 4), (4, 0), (7,)):
            for vectors, epsilon in ((True, 0), (False, 1000), (True, 2**61)):
                limit = 2 ** (7 + len(cases) % 3 * 12)
                more = {"limit": limit, "vectors": vectors and shape[-1] > 0, "epsilon": epsilon, "center": center}
                cases.append(draw.layer_norm(shape, x=x, y=y, **more))
        cases.append(draw.layer_norm((70, 384), x=x, y=y, limit=2**15, center=center))
    flat = np.full((3, 50), 9, np.uint8)
    flat[1, 7], flat[2, :25] = 10, 200
    for shift in (44, 52, 62, 20, 1):
        for y in ALL:
            case = draw.layer_norm((3, 50), y=y)
            cases.append(with_(case, {"x": flat, "shift": ints(shift)}))
            ends = {"gamma": ints(-(2**31), 2**31 - 1, *[0] * 48), "beta": np.array([2**62, -(2**62), *[5] * 48])}
            cases.append(with_(case, {**ends, "shift": ints(shift)}))
            cases.append(with_(case, {"gamma": case.arrays["gamma"][:1], "shift": ints(shift)}))
            cases.append(with_(case, {"beta": case.arrays["beta"][:1], "shift": ints(shift)}))
    # The longest rows, with the largest values; roots that are whole powers of two.
    longest = np.full((2, 2**15), -(2**31), np.int32)
    longest[0, : 2**14] = 2**31 - 1
    longest[1, 0] = 2**31 - 1
    for center, zero_point in itertools.product((0, 1), (0, 2**31 - 1, -(2**31))):
        case = draw.layer_norm(longest.shape, x="int32", y="int8", center=center)
        cases.append(with_(case, {"x": longest}, x_zero_point=zero_point))
    # y = z, of variances one below a square, where Newton's steps may end above the root.
    x = draw.rng.integers(-(2**15), 2**15, (1, 2**15)).astype(np.int32)
    square = int(np.sum(x.astype(np.int64) ** 2)) * 2**15
    for more in range(6):
        epsilon = (math.isqrt(2**60 + 2**58 + more * 2**56) + 1) ** 2 - 1 - square
        case = draw.layer_norm(x.shape, x="int32", y="int32", center=0, vectors=False, epsilon=epsilon)
        plain = {"x": x, "gamma": ints(2), "beta": np.array([0]), "shift": ints(1)}
        cases.append(with_(case, plain, x_zero_point=0, y_zero_point=0, qmin=-(2**31), qmax=2**31 - 1))
    powers = np.array([[128 + 2**k] * 16 for k in range(7)] + [[128 - 2**k] * 8 + [128 + 2**k] * 8 for k in range(7)])
    for center in (0, 1):
        case = draw.layer_norm(powers.shape, y="int32", center=center)
        cases.append(with_(case, {"x": powers.astype(np.uint8)}, x_zero_point=128))
    return cases


TABLE: dict[str, Callable[[], list[Case]]] = {f.__name__: f for f in (softmaxes, norms)}


@functools.cache
def cases_of(name: str) -> Bundle:
    return bundle(TABLE[name]())


@on_every_tier
@pytest.mark.parametrize("name", TABLE)
def test_equals_exact_integers(name: str, tier: str) -> None:
    with chosen(tier):
        check(cases_of(name))


def test_rows_of_no_values() -> None:
    for case in (Draw(5).softmax((4, 0)), Draw(5).softmax((4, 0, 2), axis=1)):
        (y,) = runtime.session(lone(case)).run(None, {"x": case.arrays["x"]})
        assert y.shape == case.arrays["x"].shape


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    values = Draw(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 90), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 20_000)))
    y = draw(st.sampled_from(ALL))
    if draw(st.booleans()):
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        scale = draw(st.floats(1e-4, 1.0))
        return values.softmax(shape, x=draw(st.sampled_from(EIGHT)), y=y, axis=axis, scale=scale)
    return values.layer_norm(
        shape,
        x=draw(st.sampled_from(ALL)),
        y=y,
        limit=2 ** draw(st.integers(1, 31)),
        vectors=draw(st.booleans()),
        epsilon=draw(st.sampled_from([0, 1, 2**20, 2**40])),
        center=draw(st.integers(0, 1)),
    )


@on_every_tier
@settings(max_examples=12)
@given(cases=st.lists(drawn(), min_size=1, max_size=6))
def test_drawn_shapes(tier: str, cases: list[Case]) -> None:
    with chosen(tier):
        check(bundle(cases))


SOFTMAX = Draw(3).softmax((2, 5))
NORM = Draw(4).layer_norm((2, 5))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(SOFTMAX, {"x": ints(1, 2)}), "Softmax: x must be uint8 or int8, not int32"),
        (with_(SOFTMAX, {"table": ints(*range(255))}), "Softmax: table must be a vector of 256 values"),
        (with_(SOFTMAX, {"table": ints(*[0] * 256)}), "values from 0 to 1048576, the first one positive"),
        (with_(SOFTMAX, {"table": ints(*[2**20 + 1] * 256)}), "values from 0 to 1048576, the first one positive"),
        (with_(SOFTMAX, {"shift": ints(17)}), "Softmax: shift 17 is not in [1, 16]"),
        (with_(NORM, {"gamma": ints(1, 2)}), "LayerNorm: gamma has 2 values, beta 5"),
        (with_(NORM, {"beta": ints(1)}), "LayerNorm: beta must be int64"),
        (with_(NORM, {"beta": np.array([2**62 + 1])}), "LayerNorm: beta 4611686018427387905 is outside [-2^62, 2^62]"),
        (with_(NORM, epsilon=2**61 + 1), "LayerNorm: epsilon 2305843009213693953 is not in [0, 2^61]"),
        (with_(NORM, {"shift": ints(1, 2)}), "LayerNorm: shift must be one value, got 2"),
    ],
)
def test_refuses_a_node_that_makes_no_sense(case: Case, message: str) -> None:
    assert message in refusal(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(SOFTMAX, axis=2), "axis 2 is out of range for x of rank 2"),
        (with_(NORM, {"x": np.zeros((2, 6), np.uint8)}), "x has rows of 6 values, gamma and beta have 5"),
        (
            with_(NORM, {"x": np.zeros(32769, np.uint8), "gamma": ints(1), "beta": np.array([1])}),
            "x has rows of 32769 values, at most 32768 are supported",
        ),
    ],
)
def test_refuses_inputs_that_do_not_fit(case: Case, message: str) -> None:
    assert message in run_refusal(case)
