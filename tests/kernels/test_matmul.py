"""MatMul of two activations on every tier, against exact integers."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cases.operator_cases import Case, Draw
from support.kernel_runs import Bundle, bundle, check, chosen, needs_library, on_every_tier, refusal, run_refusal

pytestmark = needs_library

EIGHT = ("uint8", "int8")
ALL = ("uint8", "int8", "int32")
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


@functools.cache
def table() -> Bundle:
    draw = Draw(1)
    cases = [draw.matmul(*s, a=a, b=b, y=y) for s in SHAPES for a in EIGHT for b in EIGHT for y in ALL]
    identity = {"multiplier": np.array([2], np.int32), "shift": np.array([1], np.int32)}
    raw = {"y_zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
    for a in EIGHT:
        for b in EIGHT:
            case = draw.matmul((5, 50), (50, 70), a=a, b=b, y="int32")
            cases.append(replace(case, arrays=case.arrays | identity, attributes=case.attributes | raw))
    for b, c in ((2**31 - 1, 1), (2**31 - 1, 62), (3, 1), (0, 62), (2**30, 32), (2**30, 33)):
        scale = {"multiplier": np.array([b], np.int32), "shift": np.array([c], np.int32)}
        for y in ALL:
            case = draw.matmul((5, 50), (50, 70), a="int8", b="uint8", y=y)
            cases.append(replace(case, arrays=case.arrays | scale))
    return bundle(cases)


@on_every_tier
def test_equals_exact_integers(tier: str) -> None:
    with chosen(tier):
        check(table())


@pytest.mark.parametrize("y", ALL)
def test_long_sums_that_leave_int32_before_the_zero_points_are_taken_off(y: str) -> None:
    """a·b alone is 2.3e9; with zero points close to the values the sum is small."""
    draw = Draw(2)
    count = 36_000
    for a, b, high in (("uint8", "uint8", 255), ("int8", "int8", 127), ("uint8", "int8", 0)):
        case = draw.matmul((2, count), (count, 3), a=a, b=b, y=y)
        low_a, low_b = np.iinfo(a).max, np.iinfo(b).max
        arrays = {
            "a": draw.rng.integers(low_a - 3, low_a, (2, count), endpoint=True).astype(a),
            "b": draw.rng.integers(low_b - 3, low_b, (count, 3), endpoint=True).astype(b),
        }
        zero_points = {"a_zero_point": low_a - 1, "b_zero_point": low_b - 1}
        assert high in (0, low_a)
        check(bundle([replace(case, arrays=case.arrays | arrays, attributes=case.attributes | zero_points)]))


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
    return values.matmul((*stacks[0], m, k), (*stacks[1], k, n), a=types[0], b=types[1], y=types[2])


@on_every_tier
@settings(max_examples=12)
@given(cases=st.lists(drawn(), min_size=1, max_size=6))
def test_drawn_shapes(tier: str, cases: list[Case]) -> None:
    with chosen(tier):
        check(bundle(cases))


MATMUL = Draw(3).matmul((2, 3), (3, 4))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 3), np.int32)}, "MatMul: a must be uint8 or int8, not int32"),
        ({"multiplier": np.array([1, 2], np.int32)}, "MatMul: multiplier must be one value, got 2"),
    ],
)
def test_refuses_a_node_that_makes_no_sense(arrays: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(replace(MATMUL, arrays=MATMUL.arrays | arrays))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((2, 3), (4, 5), "a has rows of 3 values, b has 4 rows: their shapes are [2,3] and [4,5]"),
        ((3,), (3, 5), "a and b must have at least 2 dimensions, their shapes are [3] and [3,5]"),
        ((2, 2, 3), (3, 3, 5), "a and b do not broadcast: their shapes are [2] and [3]"),
    ],
)
def test_refuses_inputs_that_do_not_fit(a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    arrays = {"a": np.zeros(a, np.uint8), "b": np.zeros(b, np.uint8)}
    assert message in run_refusal(replace(MATMUL, arrays=MATMUL.arrays | arrays))


def test_sums_that_could_overflow_are_refused_when_their_length_is_known() -> None:
    """33026 products of 255 · 255 are more than int32 holds; what the values are decides, not their types."""
    case = Draw(3).matmul((1, 40000), (40000, 2))
    plain = {"a_zero_point": 0, "b_zero_point": 0}
    arrays = case.arrays | {"a": np.full((1, 40000), 255, np.uint8), "b": np.full((40000, 2), 255, np.uint8)}
    large = replace(case, arrays=arrays, attributes=case.attributes | plain)
    assert "sums of 40000 products could overflow int32" in run_refusal(large)
    small = replace(large, arrays=arrays | {"b": np.full((40000, 2), 200, np.uint8)})
    check(bundle([small]))
