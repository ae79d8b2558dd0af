"""Gemm and GemmAdd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, EIGHT, Case, Draw, OperatorCases, Shape, ints, with_
from support.cases.operators._layers import FORMS, RAW, RESIDUALS, TYPES, WEIGHTS, scaled, variants


def gemm(
    draw: Draw,
    x_shape: Shape,
    columns: int,
    *,
    x: str = "uint8",
    w: str = "int8",
    y: str = "uint8",
    zero_points: str = "none",
    vectors: bool = True,
    residual: str = "",
) -> Case:
    """residual: its type, of a GemmAdd."""
    arrays = {
        "x": draw.tensor(x, x_shape),
        **draw.weights(w, (x_shape[-1], columns), columns, zero_points, vectors),
    }
    given = {"x_zero_point": draw.zero_point(x)}
    if residual:
        given["residual_zero_point"] = draw.zero_point(residual)
        arrays |= draw.residual(residual, (*x_shape[:-1], columns), columns if vectors else 1)
    return Case("GemmAdd" if residual else "Gemm", arrays, given | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [
        gemm(draw, (3, 20), 37, zero_points="one"),
        gemm(draw, (2, 3, 20), 7, w="int4", residual="uint8", y="int8"),
    ]


def small(draw: Draw) -> list[Case]:
    return [gemm(draw, (3, 2, 20), 7, w="int4"), gemm(draw, (3, 20), 7, residual="uint8")]


def body_types() -> Iterator[Case]:
    for x, w, zero_points, y in TYPES:
        yield gemm(Draw(4), (3, 20), 7, x=x, w=w, y=y, zero_points=zero_points, vectors=zero_points != "one")


def body_shapes() -> Iterator[Case]:
    shapes = ((1, 64), (2, 3, 4, 20), (1, 1), (0, 20), (2, 0, 20))
    for x_shape, columns, residual in itertools.product(shapes, (1, 6), RESIDUALS):
        yield gemm(Draw(5), x_shape, columns, x="int8", zero_points="many", residual=residual)


def long_product() -> Case:
    """Products that leave int32 before the zero points are taken off: 70 000 · 255 · 127 > 2³¹."""
    arrays = {"x": np.full((1, 70_000), 255, np.uint8), "w": np.full((70_000, 1), 127, np.int8), "bias": ints(5)}
    rescale = {"multiplier": ints(2), "shift": ints(1), "w_zero_point": np.array([126], np.int8)}
    return Case("Gemm", arrays | rescale, RAW)


def body_extremes() -> Iterator[Case]:
    """Accumulators at the ends of int32."""
    yield long_product()
    x, w = np.full((1, 2), 255, np.uint8), np.array([[127, -128], [127, -128]], np.int8)
    bias = ints(2**31 - 1 - 2 * 255 * 127, -(2**31) + 2 * 255 * 128)
    for b, c in ((2, 1), (2**31 - 1, 1), (2**31 - 1, 62), (0, 62), (1, 62)):
        rescale = {"multiplier": ints(b), "shift": ints(c), "w_zero_point": np.zeros(1, np.int8)}
        yield Case("Gemm", {"x": x, "w": w, "bias": bias, **rescale}, RAW)


def matrices() -> list[Case]:
    draw = Draw(4)
    shapes = [((1, 64), 10), ((3, 20), 7), ((1, 1), 1), ((2, 3, 4, 20), 65), ((0, 20), 6), ((2, 0, 20), 6), ((7, 6), 1)]
    large = [((1, 700), 300), ((50, 130), 130), ((4, 513), 64), ((130, 256), 200), ((1, 2048), 500)]
    cases = []
    for count, found in ((3, shapes), (1, large)):
        turns = variants(count)
        for x_shape, columns in found:
            for form, (x, y, w, zero_points, residual) in itertools.islice(turns, count * len(FORMS)):
                types = {"x": x, "y": y, "w": w, "zero_points": zero_points, "residual": residual}
                cases.append(scaled(draw, gemm(draw, x_shape, columns, **types), form))
    return cases


def extremes() -> list[Case]:
    """Accumulators at the ends of int32, and products that leave it before the zero points are taken off."""
    x, w = np.full((1, 2), 255, np.uint8), np.array([[127, -128], [127, -128]], np.int8)
    bias = ints(2**31 - 1 - 2 * 255 * 127, -(2**31) + 2 * 255 * 128)
    cases = []
    for b, c in ((2, 1), (2**31 - 1, 1), (2**31 - 1, 62), (0, 62), (1, 62)):
        arrays = {"x": x, "w": w, "bias": bias, "multiplier": ints(b), "shift": ints(c)}
        for y in (RAW, Draw(c).result("int8"), Draw(c).result("uint8")):
            cases.append(Case("Gemm", arrays | {"w_zero_point": np.zeros(1, np.int8)}, y))
    cases.append(long_product())
    # Rounding halves, per channel: 3 · 1 / 2 and so on.
    halves = {
        "x": np.array([[1], [3], [5]], np.uint8),
        "w": np.array([[1, -1] * 40], np.int8),
        "bias": np.zeros(80, np.int32),
        "multiplier": ints(1),
        "shift": ints(1),
        "w_zero_point": np.zeros(1, np.int8),
    }
    cases += [Case("Gemm", halves, Draw(9).result(y) | {"y_zero_point": 7}) for y in ALL]
    # The same by 2^32, with multipliers that can be doubled and the first ones that cannot, and the residual's too.
    many = np.arange(100, dtype=np.uint8)[:, None]
    for b, b_r in ((2**29, 2**29), (2**30 - 1, 2**30 - 1), (2**30, 3), (3, 2**30), (2**31 - 1, 2**31 - 1)):
        arrays = halves | {"x": many, "multiplier": ints(b), "shift": ints(32)}
        for y, r, zero_point in itertools.product(EIGHT, EIGHT, (0, 5, 127)):
            values = Draw(10).tensor(r, (100, 80))
            residual = {"residual": values, "residual_multiplier": np.full(80, b_r, np.int32)}
            attributes = Draw(9).result(y) | {"y_zero_point": 7}
            cases.append(Case("Gemm", arrays, attributes))
            cases.append(Case("GemmAdd", arrays | residual, attributes | {"residual_zero_point": zero_point}))
    return cases


def pairs() -> list[Case]:
    """Pairs of weights whose products with 255 just fit 16 bits together, and pairs that do not."""
    cases = []
    for pair in ((64, 64), (65, 64), (1, 127), (2, 127), (-64, -64), (-65, -64), (-128, 0), (-128, -1), (127, -128)):
        for rows, steps in ((1, 1), (7, 3), (13, 130)):
            w = np.resize(np.array(pair, np.int8), 2 * steps)[:, None].repeat(80, axis=1)
            x = np.full((rows, 2 * steps), 255, np.uint8)
            arrays = {"x": x, "w": w, "bias": np.arange(80, dtype=np.int32), "multiplier": ints(2), "shift": ints(1)}
            cases.append(Case("Gemm", arrays | {"w_zero_point": np.zeros(1, np.int8)}, RAW))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    rows = tuple(draw(st.lists(st.integers(0, 20), min_size=1, max_size=2)))
    values = Draw(draw(st.integers(0, 2**32)))
    form = draw(st.sampled_from(FORMS))
    case = gemm(
        values,
        (*rows, draw(st.integers(1, 300))),
        draw(st.integers(1, 300)),
        x=draw(st.sampled_from(EIGHT)),
        w=draw(st.sampled_from(WEIGHTS)),
        y=draw(st.sampled_from(ALL)),
        zero_points=draw(st.sampled_from(["none", "one", "many"])),
        residual=draw(st.sampled_from(RESIDUALS)),
    )
    return scaled(values, case, form)


GEMM = gemm(Draw(7), (2, 8), 5)


CASES = OperatorCases(
    nodes,
    small,
    {"types": body_types, "shapes": body_shapes, "extremes": body_extremes},
    {"matrices": matrices, "extremes": extremes, "pairs": pairs},
    drawn(),
    refused=[
        (with_(GEMM, {"w": np.zeros((1, 8, 5), np.int8)}), "Gemm: w must have 2 dimensions [K, N]"),
    ],
    refused_inputs=[
        (with_(GEMM, {"x": np.zeros((2, 7), np.uint8)}), "x has rows of 7 values, w has 8 rows"),
        (with_(GEMM, {"x": np.zeros(8, np.uint8)}), "x must have at least 2 dimensions"),
    ],
)
