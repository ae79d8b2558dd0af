"""Concat2 … Concat8."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from support.cases.operators import ALL, BYTES, Case, Draw, OperatorCases, Shape, ints, with_


def concat(draw: Draw, shapes: tuple[Shape, ...], kinds: tuple[str, ...], *, axis: int, y: str = "uint8") -> Case:
    parts = {f"x_{i}": draw.tensor(k, s, 2**10) for i, (k, s) in enumerate(zip(kinds, shapes, strict=True))}
    arrays = {"multiplier": draw.multiplier(len(kinds)), "shift": draw.shift(len(kinds), 28, 34), **parts}
    given = {"axis": axis, "zero_points": [draw.zero_point(k) for k in kinds]}
    return Case(f"Concat{len(kinds)}", arrays, given | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    kinds = ("uint8", "int32", "int8", "int16") * 2
    return [concat(draw, tuple((2, 3, i + 1) for i in range(n)), kinds[:n], axis=2) for n in range(2, 9)]


def small(draw: Draw) -> list[Case]:
    return [concat(draw, ((2, 3), (2, 5)), ("int8", "int32"), axis=-1)]


def bodies() -> Iterator[Case]:
    for count, y in itertools.product(range(2, 9), ALL):
        kinds = tuple(ALL[(i + count) % len(ALL)] for i in range(count))
        shapes = tuple((2, 3, i + 1, 2) for i in range(count))
        draw = Draw(10)
        for axis in (2, -2):
            yield concat(draw, shapes, kinds, axis=axis, y=y)
        yield concat(draw, ((0, 2), (0, 3), *[(0, 1)] * (count - 2)), kinds, axis=1, y=y)


def same(kind: str) -> dict[str, object]:
    """The attributes that with b = 2^c leave a tensor as it is."""
    info = np.iinfo(kind)
    return {
        "qmin": info.min,
        "qmax": info.max,
        "y_zero_point": 0,
        "y_type": {"uint8": 2, "int8": 3, "int16": 5, "int32": 6}[kind],
    }


def concats() -> list[Case]:
    draw = Draw(5)
    cases = []
    for count in range(2, 9):
        for y in ALL:
            kinds = tuple(ALL[(i + count) % len(ALL)] for i in range(count))
            cases += [concat(draw, tuple((2, 3, i + 1, 2) for i in range(count)), kinds, axis=a, y=y) for a in (2, -2)]
            cases.append(concat(draw, ((0, 2), (0, 3), *[(0, 1)] * (count - 2)), kinds, axis=1, y=y))
            cases.append(concat(draw, ((5, 0), (5, 33), *[(5, 1)] * (count - 2)), kinds, axis=-1, y=y))
            cases.append(concat(draw, tuple((2, 90, 64 * (1 + i % 3)) for i in range(count)), kinds, axis=-1, y=y))
            cases.append(concat(draw, tuple((1 + i, 5000) for i in range(count)), kinds, axis=0, y=y))
    for kind in ALL:  # a rescale that changes nothing, beside one that does
        case = concat(draw, ((3, 50), (3, 40)), (kind, kind), axis=1, y=kind)
        scale = {"multiplier": np.array([2, 3], np.int32), "shift": np.array([1, 2], np.int32)}
        for zero_points in ([0, 0], [1, 0]):
            cases.append(
                replace(
                    case, arrays=case.arrays | scale, attributes={"axis": 1, "zero_points": zero_points} | same(kind)
                )
            )
    return cases


CONCAT = concat(Draw(7), ((2, 3), (2, 4)), ("uint8", "uint8"), axis=1)


CASES = OperatorCases(
    nodes,
    small,
    {"counts": bodies},
    {"concats": concats},
    refused=[
        (
            with_(CONCAT, {"shift": ints(1, 2, 3)}),
            "multiplier, shift and zero_points must have 2 values each, not 2, 3 and 2",
        ),
        (with_(CONCAT, zero_points=[0, 256]), "Concat2: zero_points of x_1 256 is outside the input's type"),
    ],
    refused_inputs=[
        (with_(CONCAT, {"x_1": np.zeros((3, 3), np.uint8)}), "but may differ along axis 1 only"),
        (with_(CONCAT, {"x_1": np.zeros(3, np.uint8)}), "x_0 and x_1 have shapes [2,3] and [3]"),
    ],
    moves=[
        (
            f"own.Concat3<{BYTES}, axis=1, zero_points=[1,2,3]>(mul, sh, f, k, f)",
            "uint8[2,10,6,5]",
            "int32[3] mul, int32[3] sh, uint8[2,2,6,5] k",
            {"axis": -1},
        ),
    ],
)
