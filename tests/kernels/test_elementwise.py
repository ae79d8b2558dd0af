"""Add, Sub, Mul, LookupTable and Concat on every tier, against exact integers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
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
MANY = (3, 70, 701)  # several parts on several threads

# y's axis that vectors run along, and the lengths of a_multiplier, b_multiplier and shift
SUMS = [
    ((2, 3, 4, 5), (2, 3, 4, 5), -1, (1, 1, 1)),
    ((2, 3, 4, 5), (2, 3, 4, 5), -1, (5, 5, 5)),
    ((2, 3, 4, 5), (2, 3, 4, 5), 1, (3, 1, 3)),
    ((2, 3, 4, 5), (4, 1), -2, (1, 4, 1)),
    ((5,), (2, 1, 4, 5), 0, (2, 1, 2)),
    ((2, 1, 1, 5), (2, 3, 4, 5), -1, (1, 1, 5)),
    ((3, 2, 67), (3, 1, 67), -1, (1, 1, 1)),
    ((3, 1, 67), (3, 2, 67), -1, (67, 1, 67)),
    ((2, 700), (2, 1), -1, (1, 700, 1)),
    ((1,), (2, 1100), -1, (1100, 1, 1100)),
    ((2, 1), (1, 130), 0, (2, 2, 1)),
    ((3,), (), 0, (3, 1, 1)),
    ((), (), -1, (1, 1, 1)),
    ((0, 3), (3,), 1, (3, 3, 3)),
    ((4, 0), (4, 1), 0, (4, 1, 1)),
    (MANY, MANY, -1, (1, 1, 1)),
    (MANY, (70, 1), 1, (1, 70, 1)),
]


def sums() -> list[Case]:
    draw = Draw(1)
    ops, results = itertools.cycle(("Add", "Sub")), itertools.cycle(ALL)
    cases = []
    for a, b in itertools.product(ALL, ALL):
        for a_shape, b_shape, axis, lengths in SUMS:
            for y in ALL if len(a_shape) == 4 else (next(results),):
                cases.append(draw.add(a_shape, b_shape, op=next(ops), a=a, b=b, y=y, axis=axis, lengths=lengths))
    return cases


def byte_sums() -> list[Case]:
    """Every pair of bytes, with shifts and multipliers at the ends of what 32 bits can do, and beyond."""
    draw = Draw(2)
    every = {"uint8": np.arange(256).astype(np.uint8), "int8": np.arange(-128, 128).astype(np.int8)}
    limits = [
        (m, c)
        for m in (0, 1, 2**15 - 1, 2**15, 2**30, 2**31 - 2**15 - 1, 2**31 - 2**15, 2**31 - 1)
        for c in (1, 15, 16, 17, 30, 31, 32, 40, 46, 47, 48, 62)
    ]
    cases = []
    for i, (m, c) in enumerate(limits):
        a, b, y = EIGHT[i % 2], EIGHT[i // 2 % 2], EIGHT[i // 4 % 2]
        case = draw.add((256, 1), (256,), a=a, b=b, y=y, op=("Add", "Sub")[i // 8 % 2])
        arrays = case.arrays | {"a": every[a].reshape(256, 1), "b": every[b], "a_multiplier": np.array([m], np.int32)}
        arrays |= {"shift": np.array([c], np.int32)}
        if i % 3 == 0:
            arrays["b_multiplier"] = arrays["a_multiplier"]
        cases.append(replace(case, arrays=arrays))
    return cases


def products() -> list[Case]:
    draw = Draw(3)
    shapes = [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((3,), ()), ((), ()), ((0, 3), (3,)), ((2, 1, 4), (5, 4))]
    shapes += [((2, 9, 70), (2, 1, 70)), ((1, 1000), (2, 1)), (MANY, MANY), (MANY, (3, 1, 701))]
    cases = [draw.mul(*s, a=a, b=b, y=y) for s in shapes for a in EIGHT for b in EIGHT for y in ALL]
    for b, c in ((2**31 - 1, 1), (2**31 - 1, 62), (2**31 - 1, 16), (1, 1), (0, 5), (2, 1)):
        for y in ALL:
            case = draw.mul((256, 1), (256,), a="uint8", b="int8", y=y)
            scale = {"multiplier": np.array([b], np.int32), "shift": np.array([c], np.int32)}
            cases.append(replace(case, arrays=case.arrays | scale))
    return cases


def tables() -> list[Case]:
    draw = Draw(4)
    shapes = ((), (0, 4), (1,), (63,), (64,), (65,), (2, 30, 41), MANY)
    return [draw.lookup_table(s, x=x, y=y) for s in shapes for x in EIGHT for y in EIGHT]


def same(kind: str) -> dict[str, object]:
    """The attributes that with b = 2^c leave a tensor as it is."""
    info = np.iinfo(kind)
    return {"qmin": info.min, "qmax": info.max, "y_zero_point": 0, "y_type": {"uint8": 2, "int8": 3, "int32": 6}[kind]}


def concats() -> list[Case]:
    draw = Draw(5)
    cases = []
    for count in range(2, 9):
        for y in ALL:
            kinds = tuple(ALL[(i + count) % 3] for i in range(count))
            cases += [draw.concat(tuple((2, 3, i + 1, 2) for i in range(count)), kinds, axis=a, y=y) for a in (2, -2)]
            cases.append(draw.concat(((0, 2), (0, 3), *[(0, 1)] * (count - 2)), kinds, axis=1, y=y))
            cases.append(draw.concat(((5, 0), (5, 33), *[(5, 1)] * (count - 2)), kinds, axis=-1, y=y))
            cases.append(draw.concat(tuple((2, 90, 64 * (1 + i % 3)) for i in range(count)), kinds, axis=-1, y=y))
            cases.append(draw.concat(tuple((1 + i, 5000) for i in range(count)), kinds, axis=0, y=y))
    for kind in ALL:  # a rescale that changes nothing, beside one that does
        case = draw.concat(((3, 50), (3, 40)), (kind, kind), axis=1, y=kind)
        scale = {"multiplier": np.array([2, 3], np.int32), "shift": np.array([1, 2], np.int32)}
        for zero_points in ([0, 0], [1, 0]):
            cases.append(
                replace(
                    case, arrays=case.arrays | scale, attributes={"axis": 1, "zero_points": zero_points} | same(kind)
                )
            )
    return cases


TABLE: dict[str, Callable[[], list[Case]]] = {f.__name__: f for f in (sums, byte_sums, products, tables, concats)}


@functools.cache
def cases_of(name: str) -> Bundle:
    return bundle(TABLE[name]())


@on_every_tier
@pytest.mark.parametrize("name", TABLE)
def test_equals_exact_integers(name: str, tier: str) -> None:
    with chosen(tier):
        check(cases_of(name))


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: np.prod(s) < 20_000))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shapes = [tuple(shape), tuple(shape)]
    for i in (0, 1):
        kept = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        shapes[i] = tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))
    shorter = draw(st.integers(0, len(shape) - 1))
    shapes[1] = shapes[1][shorter:]
    length = np.broadcast_shapes(*shapes)[axis]
    values = Draw(draw(st.integers(0, 2**32)))
    a, b, y = (draw(st.sampled_from(ALL)) for _ in range(3))
    op = draw(st.sampled_from(["Add", "Sub", "Mul"]))
    if op == "Mul":
        return values.mul(*shapes, a=EIGHT[a == "int8"], b=EIGHT[b == "int8"], y=y)
    lengths = tuple(draw(st.sampled_from([1, max(length, 1)])) for _ in range(3)) if length else (1, 1, 1)
    return values.add(*shapes, op=op, a=a, b=b, y=y, axis=axis, lengths=lengths)


@on_every_tier
@settings(max_examples=12)
@given(cases=st.lists(drawn(), min_size=1, max_size=6))
def test_drawn_shapes(tier: str, cases: list[Case]) -> None:
    with chosen(tier):
        check(bundle(cases))


def with_(case: Case, arrays: dict[str, np.ndarray] | None = None, **attributes: object) -> Case:
    return replace(case, arrays=case.arrays | (arrays or {}), attributes=case.attributes | attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


ADD = Draw(6).add((2, 3), (2, 3))
CONCAT = Draw(7).concat(((2, 3), (2, 4)), ("uint8", "uint8"), axis=1)
LOOKUP = Draw(8).lookup_table((5,))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(ADD, {"a": np.zeros((2, 3), np.float32)}), "Add: a must be uint8, int8 or int32, not element type 1"),
        (
            with_(ADD, {"a_multiplier": ints(1, 1), "shift": ints(1, 2, 3)}),
            "a_multiplier has 2 values, others have 3",
        ),
        (with_(ADD, {"b_multiplier": ints(-2)}), "Add: b_multiplier -2 is negative"),
        (with_(ADD, a_zero_point=300), "Add: a_zero_point 300 is outside the input's type"),
        (with_(Draw(0).mul((3,), (3,)), {"b": ints(1, 2, 3)}), "Mul: b must be uint8 or int8, not int32"),
        (with_(Draw(0).mul((3,), (3,)), {"shift": ints(1, 2)}), "Mul: shift must be one value, got 2"),
        (
            with_(CONCAT, {"shift": ints(1, 2, 3)}),
            "multiplier, shift and zero_points must have 2 values each, not 2, 3 and 2",
        ),
        (with_(CONCAT, zero_points=[0, 256]), "Concat2: zero_points of x_1 256 is outside the input's type"),
        (with_(LOOKUP, {"table": np.zeros(255, np.uint8)}), "LookupTable: table must be a vector of 256 values"),
        (with_(LOOKUP, {"x": ints(1, 2)}), "LookupTable: x must be uint8 or int8, not int32"),
    ],
)
def test_refuses_a_node_that_makes_no_sense(case: Case, message: str) -> None:
    assert message in refusal(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            with_(ADD, {"b": np.zeros((2, 2), np.uint8)}),
            "a and b do not broadcast: their shapes are [2,3] and [2,2]",
        ),
        (
            with_(ADD, {"shift": ints(1, 2)}),
            "multiplier and shift have 2 values, y of shape [2,3] has 3 along axis -1",
        ),
        (with_(ADD, {"shift": ints(1, 2)}, axis=2), "axis 2 is out of range for y of rank 2"),
        (with_(CONCAT, {"x_1": np.zeros((3, 3), np.uint8)}), "but may differ along axis 1 only"),
        (with_(CONCAT, {"x_1": np.zeros(3, np.uint8)}), "x_0 and x_1 have shapes [2,3] and [3]"),
    ],
)
def test_refuses_inputs_that_do_not_fit(case: Case, message: str) -> None:
    assert message in run_refusal(case)
