"""Add and Sub."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, BYTES, EIGHT, Case, Draw, OperatorCases, Shape, U, ints, with_
from support.cases.operators._pairs import MANY, broadcast_shapes


def add(
    draw: Draw,
    a_shape: Shape,
    b_shape: Shape,
    *,
    op: str = "Add",
    a: str = "uint8",
    b: str = "uint8",
    y: str = "uint8",
    axis: int = -1,
    lengths: Shape = (1, 1, 1),
) -> Case:
    """op: Add or Sub. lengths: of a_multiplier, b_multiplier and shift."""
    bits = {"int32": 22, "int16": 28, "uint8": 30, "int8": 30}
    arrays = {
        "a": draw.tensor(a, a_shape, 2**20),
        "b": draw.tensor(b, b_shape, 2**20),
        "a_multiplier": draw.multiplier(lengths[0], bits[a]),
        "b_multiplier": draw.multiplier(lengths[1], bits[b]),
        "shift": draw.shift(lengths[2], 30, 34),
    }
    given = {"a_zero_point": draw.zero_point(a), "b_zero_point": draw.zero_point(b), "axis": axis}
    return Case(op, arrays, given | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [
        add(draw, (2, 3, 4, 65), (65,), a="int32", lengths=(65, 1, 65)),
        add(draw, (2, 300), (2, 300), op="Sub", b="int8"),
    ]


def small(draw: Draw) -> list[Case]:
    return [
        add(draw, (2, 3, 4), (4,), lengths=(4, 1, 4)),
        add(draw, (3, 1), (2, 3, 4), op="Sub", axis=1, lengths=(3, 3, 1)),
    ]


BODY_SUMS = [
    ((2, 3, 4, 5), (2, 3, 4, 5), -1, (5, 5, 5)),
    ((2, 3, 4, 5), (2, 3, 4, 5), 1, (3, 1, 3)),
    ((2, 3, 4, 5), (4, 1), -2, (1, 4, 1)),
    ((5,), (2, 1, 4, 5), 0, (2, 1, 2)),
    ((2, 1, 1, 5), (2, 3, 4, 5), -1, (1, 1, 5)),
    ((3,), (), 0, (3, 1, 1)),
    ((), (), -1, (1, 1, 1)),
    ((0, 3), (3,), 1, (3, 3, 3)),
]


def body_sums() -> Iterator[Case]:
    for op, a, b in itertools.product(("Add", "Sub"), ALL, ALL):
        draw = Draw(8)
        for (a_shape, b_shape, axis, lengths), y in zip(BODY_SUMS, itertools.cycle(ALL), strict=False):
            yield add(draw, a_shape, b_shape, op=op, a=a, b=b, y=y, axis=axis, lengths=lengths)


@st.composite
def drawn_bodies(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shapes = []
    for _ in "ab":
        kept = [draw(st.booleans()) for _ in shape]
        start = draw(st.integers(0, len(shape)))
        shapes.append(tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))[start:])
    length = np.broadcast_shapes(*shapes, (1,) * len(shape))[axis]
    whole = max(map(len, shapes)) == len(shape)  # the axis is one of y, whose rank is that of the larger input
    return add(
        Draw(draw(st.integers(0, 2**32))),
        *shapes,
        op=draw(st.sampled_from(["Add", "Sub"])),
        a=draw(st.sampled_from(ALL)),
        b=draw(st.sampled_from(ALL)),
        axis=axis if whole else -1,
        lengths=tuple(draw(st.sampled_from([1, length])) if whole else 1 for _ in range(3)),
    )


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
                cases.append(add(draw, a_shape, b_shape, op=next(ops), a=a, b=b, y=y, axis=axis, lengths=lengths))
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
        case = add(draw, (256, 1), (256,), a=a, b=b, y=y, op=("Add", "Sub")[i // 8 % 2])
        arrays = case.arrays | {"a": every[a].reshape(256, 1), "b": every[b], "a_multiplier": np.array([m], np.int32)}
        arrays |= {"shift": np.array([c], np.int32)}
        if i % 3 == 0:
            arrays["b_multiplier"] = arrays["a_multiplier"]
        cases.append(replace(case, arrays=arrays))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    shapes, axis, length = draw(broadcast_shapes())
    values = Draw(draw(st.integers(0, 2**32)))
    a, b, y = (draw(st.sampled_from(ALL)) for _ in range(3))
    op = draw(st.sampled_from(["Add", "Sub"]))
    lengths = tuple(draw(st.sampled_from([1, max(length, 1)])) for _ in range(3)) if length else (1, 1, 1)
    return add(values, *shapes, op=op, a=a, b=b, y=y, axis=axis, lengths=lengths)


ADD = add(Draw(6), (2, 3), (2, 3))


CASES = OperatorCases(
    nodes,
    small,
    {"sums": body_sums},
    {"sums": sums, "byte_sums": byte_sums},
    drawn(),
    drawn_bodies(),
    [
        (
            with_(ADD, {"a": np.zeros((2, 3), np.float32)}),
            "Add: a must be uint8, int8, int16 or int32, not element type 1",
        ),
        (
            with_(ADD, {"a_multiplier": ints(1, 1), "shift": ints(1, 2, 3)}),
            "a_multiplier has 2 values, others have 3",
        ),
        (with_(ADD, {"b_multiplier": ints(-2)}), "Add: b_multiplier -2 is negative"),
        (with_(ADD, a_zero_point=300), "Add: a_zero_point 300 is outside the input's type"),
    ],
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
    ],
    [
        (f"own.Add<{BYTES}, a_zero_point=7>(f, f, mula, mulb, sh)", U, "int32[1] mula, int32[1] mulb, int32[1] sh", {}),
        (
            f"own.Sub<{BYTES}, axis=1>(f, k, mula, mulb, sh)",
            U,
            "int8[4,1,1] k, int32[4] mula, int32[1] mulb, int32[1] sh",
            {"axis": -1},
        ),
    ],
)
