"""LayerNorm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, Case, Draw, OperatorCases, Shape, ints, with_


def layer_norm(
    draw: Draw,
    shape: Shape,
    *,
    x: str = "uint8",
    y: str = "uint8",
    limit: int = 2**31,
    vectors: bool = True,
    epsilon: int = 0,
    **attributes: Any,
) -> Case:
    """limit: of the values of x. vectors: gamma and beta for every place."""
    count = shape[-1] if vectors else 1
    arrays = {
        "x": draw.tensor(x, shape, limit),
        "gamma": draw.tensor("int32", (count,)),
        "beta": draw.rng.integers(-(2**50), 2**50, count),
        "shift": draw.shift(1, 44, 46),
    }
    given = {"epsilon": epsilon, "x_zero_point": draw.zero_point(x)} | attributes
    return Case("LayerNorm", arrays, given | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [layer_norm(draw, (6, 70), y="int8")]


def small(draw: Draw) -> list[Case]:
    return [layer_norm(draw, (2, 3, 20), epsilon=7)]


def body_types() -> Iterator[Case]:
    for x, y, center in itertools.product(ALL, ALL, (0, 1)):
        draw = Draw(16)
        for limit in (3, 2**14, 2**31):
            yield layer_norm(draw, (2, 3, 40), x=x, y=y, limit=limit, center=center, epsilon=limit)
        yield layer_norm(draw, (5,), x=x, y=y, vectors=False, center=center, epsilon=2**61)
        yield layer_norm(draw, (3, 1), x=x, y=y, center=center)
        yield layer_norm(draw, (0, 4), x=x, y=y, center=center)


def longest_rows() -> Iterator[Case]:
    for ends in ((0, 0), (32767, 32767), (-32768, 32767), (0, 1), (-(2**31), 2**31 - 1)):
        case = layer_norm(Draw(17), (1, 2**15), x="int32", y="int32", epsilon=2**61)
        x = np.where(np.arange(2**15) % 2, *ends).astype(np.int32).reshape(1, -1)
        changes: tuple[dict[str, Any], ...] = ({}, {"epsilon": 0}, {"center": 0, "x_zero_point": 0})
        for change in changes:
            yield with_(case, {"x": x}, **change)


@st.composite
def drawn_bodies(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 40)))
    return layer_norm(
        Draw(draw(st.integers(0, 2**32))),
        shape,
        x=draw(st.sampled_from(ALL)),
        y=draw(st.sampled_from(ALL)),
        limit=2 ** draw(st.integers(1, 31)),
        epsilon=draw(st.one_of(st.integers(0, 9), st.integers(0, 2**61))),
    )


def norms() -> list[Case]:
    draw = Draw(2)
    cases = []
    for x, y, center in itertools.product(ALL, ALL, (0, 1)):
        for shape in ((2, 3, 40), (5, 1), (3, 67), (0, 4), (4, 0), (7,)):
            for vectors, epsilon in ((True, 0), (False, 1000), (True, 2**61)):
                limit = 2 ** (7 + len(cases) % 3 * 12)
                more = {"limit": limit, "vectors": vectors and shape[-1] > 0, "epsilon": epsilon, "center": center}
                cases.append(layer_norm(draw, shape, x=x, y=y, **more))
        cases.append(layer_norm(draw, (70, 384), x=x, y=y, limit=2**15, center=center))
    flat = np.full((3, 50), 9, np.uint8)
    flat[1, 7], flat[2, :25] = 10, 200
    for shift in (44, 52, 62, 20, 1):
        for y in ALL:
            case = layer_norm(draw, (3, 50), y=y)
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
        case = layer_norm(draw, longest.shape, x="int32", y="int8", center=center)
        cases.append(with_(case, {"x": longest}, x_zero_point=zero_point))
    # y = z, of variances one below a square, where Newton's steps may end above the root.
    x = draw.rng.integers(-(2**15), 2**15, (1, 2**15)).astype(np.int32)
    square = int(np.sum(x.astype(np.int64) ** 2)) * 2**15
    for more in range(6):
        epsilon = (math.isqrt(2**60 + 2**58 + more * 2**56) + 1) ** 2 - 1 - square
        case = layer_norm(draw, x.shape, x="int32", y="int32", center=0, vectors=False, epsilon=epsilon)
        plain = {"x": x, "gamma": ints(2), "beta": np.array([0]), "shift": ints(1)}
        cases.append(with_(case, plain, x_zero_point=0, y_zero_point=0, qmin=-(2**31), qmax=2**31 - 1))
    powers = np.array([[128 + 2**k] * 16 for k in range(7)] + [[128 - 2**k] * 8 + [128 + 2**k] * 8 for k in range(7)])
    for center in (0, 1):
        case = layer_norm(draw, powers.shape, y="int32", center=center)
        cases.append(with_(case, {"x": powers.astype(np.uint8)}, x_zero_point=128))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    values = Draw(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 90), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 20_000)))
    return layer_norm(
        values,
        shape,
        x=draw(st.sampled_from(ALL)),
        y=draw(st.sampled_from(ALL)),
        limit=2 ** draw(st.integers(1, 31)),
        vectors=draw(st.booleans()),
        epsilon=draw(st.sampled_from([0, 1, 2**20, 2**40])),
        center=draw(st.integers(0, 1)),
    )


NORM = layer_norm(Draw(4), (2, 5))


CASES = OperatorCases(
    nodes,
    small,
    {"types": body_types, "longest_rows": longest_rows},
    {"norms": norms},
    drawn(),
    drawn_bodies(),
    [
        (with_(NORM, {"gamma": ints(1, 2)}), "LayerNorm: gamma has 2 values, beta 5"),
        (with_(NORM, {"beta": ints(1)}), "LayerNorm: beta must be int64"),
        (with_(NORM, {"beta": np.array([2**62 + 1])}), "LayerNorm: beta 4611686018427387905 is outside [-2^62, 2^62]"),
        (with_(NORM, epsilon=2**61 + 1), "LayerNorm: epsilon 2305843009213693953 is not in [0, 2^61]"),
        (with_(NORM, center=-3), "LayerNorm: center must be 0 or 1, not -3"),
        (with_(NORM, {"shift": ints(1, 2)}), "LayerNorm: shift must be one value, got 2"),
    ],
    [
        (with_(NORM, {"x": np.zeros((2, 6), np.uint8)}), "x has rows of 6 values, gamma and beta have 5"),
        (
            with_(NORM, {"x": np.zeros(32769, np.uint8), "gamma": ints(1), "beta": np.array([1])}),
            "x has rows of 32769 values, at most 32768 are supported",
        ),
    ],
)
