"""Conv and ConvAdd."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import ALL, EIGHT, Case, Draw, OperatorCases, Shape, ints, with_
from support.cases.operators._layers import FORMS, RAW, RESIDUALS, TYPES, WEIGHTS, scaled, variants


def conv(
    draw: Draw,
    x_shape: Shape,
    w_shape: Shape,
    *,
    x: str = "uint8",
    w: str = "int8",
    y: str = "uint8",
    zero_points: str = "none",
    vectors: bool = True,
    residual: str = "",
    **attributes: Any,
) -> Case:
    """w_shape: [M, kH, kW, C/group]. residual: its type, of a ConvAdd."""
    arrays = {"x": draw.tensor(x, x_shape), **draw.weights(w, w_shape, w_shape[0], zero_points, vectors)}
    group = x_shape[3] // w_shape[3]
    given = attributes | ({"group": group} if group > 1 else {}) | {"x_zero_point": draw.zero_point(x)}
    if residual:
        shape = Case("Conv", arrays, given | draw.result(y)).expected().shape
        given["residual_zero_point"] = draw.zero_point(residual)
        arrays |= draw.residual(residual, shape, w_shape[0] if vectors else 1)
    return Case("ConvAdd" if residual else "Conv", arrays, given | draw.result(y))


def nodes(draw: Draw) -> list[Case]:
    return [
        conv(draw, (2, 7, 6, 8), (20, 3, 3, 8), x="int8", w="int4", y="int8", zero_points="many", pads=(1, 1, 1, 1)),
        conv(draw, (1, 9, 9, 24), (24, 3, 3, 1), strides=(2, 2)),
        conv(draw, (2, 5, 5, 4), (6, 3, 3, 2), residual="int32", x="int8"),
    ]


def small(draw: Draw) -> list[Case]:
    return [
        conv(draw, (2, 7, 6, 8), (12, 3, 2, 4), strides=(2, 1), pads=(1, 0, 2, 1), x="int8", zero_points="many"),
        conv(draw, (2, 7, 6, 8), (8, 3, 3, 1), residual="int32", y="int32"),
    ]


# x, w [M, kH, kW, C / group], attributes
Layer = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
UNEVEN = {"strides": (2, 1), "pads": (1, 0, 2, 1), "dilations": (1, 2)}


def body_types() -> Iterator[Case]:
    for x, w, zero_points, y in TYPES:
        yield conv(Draw(1), (2, 7, 6, 8), (12, 3, 2, 4), x=x, w=w, y=y, zero_points=zero_points, **UNEVEN)


SHAPES: list[Layer] = [
    ((1, 5, 5, 3), (4, 1, 1, 3), {}),
    ((2, 1, 9, 4), (6, 1, 3, 4), {"pads": (0, 1, 0, 1)}),  # of one dimension
    ((1, 7, 7, 3), (8, 7, 7, 3), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
    ((1, 6, 7, 8), (8, 3, 3, 1), {"pads": (1, 1, 1, 1)}),  # depthwise
    ((1, 6, 7, 4), (8, 3, 3, 1), {"strides": (2, 1)}),  # depthwise, two outputs for each input
    ((1, 9, 9, 6), (9, 3, 3, 2), {"dilations": (3, 2), "pads": (0, 3, 1, 0)}),
    ((1, 3, 4, 2), (5, 3, 4, 2), {}),  # as large as the input
    ((0, 6, 7, 8), (8, 3, 3, 1), {"pads": (1, 1, 1, 1)}),  # an empty batch
]


def body_shapes() -> Iterator[Case]:
    for (x_shape, w_shape, attributes), vectors in itertools.product(SHAPES, (True, False)):
        yield conv(Draw(2), x_shape, w_shape, x="int8", zero_points="many", vectors=vectors, **attributes)


def body_residuals() -> Iterator[Case]:
    for residual, (zero_points, vectors), y in itertools.product(ALL, (("none", False), ("many", True)), ALL):
        draw, how = Draw(3), {"y": y, "residual": residual, "vectors": vectors}
        yield conv(draw, (2, 5, 5, 4), (6, 3, 3, 2), zero_points=zero_points, **how)
        yield conv(draw, (0, 5, 5, 4), (6, 3, 3, 4), **how)


def body_extremes() -> Iterator[Case]:
    """Products that leave int32 before the zero points are taken off: 70 000 · 255 · 127 > 2³¹."""
    arrays = {"x": np.full((1, 1, 1, 70_000), 255, np.uint8), "w": np.full((1, 1, 1, 70_000), 127, np.int8)}
    rescale = {"multiplier": ints(2), "shift": ints(1), "w_zero_point": np.array([126], np.int8)}
    yield Case("Conv", {**arrays, "bias": ints(5), **rescale}, RAW)


@st.composite
def drawn_bodies(draw: st.DrawFn) -> Case:
    group = draw(st.integers(1, 4))
    per_group, filters = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilations = (draw(pairs) for _ in range(3))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    more = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    # At least as large as the kernel, with the padding.
    size = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) + more[i] for i in (0, 1)]
    return conv(
        Draw(draw(st.integers(0, 2**32))),
        (draw(st.integers(0, 2)), *size, group * per_group),
        (group * filters, *kernel, per_group),
        x=draw(st.sampled_from(EIGHT)),
        w=draw(st.sampled_from(WEIGHTS)),
        zero_points=draw(st.sampled_from(["none", "one", "many"])),
        residual=draw(st.sampled_from(RESIDUALS)),
        strides=strides,
        pads=pads,
        dilations=dilations,
    )


LAYERS: list[Layer] = [
    ((1, 9, 8, 16), (24, 3, 3, 16), {"pads": (1, 1, 1, 1)}),
    ((2, 7, 6, 8), (12, 3, 2, 8), UNEVEN),
    ((2, 8, 9, 65), (80, 1, 1, 65), {}),
    ((1, 12, 11, 64), (144, 1, 1, 64), {"strides": (2, 2)}),
    ((1, 15, 17, 3), (16, 7, 7, 3), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),  # a first layer
    ((1, 11, 9, 3), (5, 3, 3, 3), {"strides": (2, 2), "pads": (1, 1, 0, 0)}),
    ((2, 1, 9, 4), (6, 1, 3, 4), {"pads": (0, 1, 0, 1)}),  # of one dimension
    ((1, 6, 7, 20), (8, 3, 3, 5), {}),
    ((1, 9, 9, 6), (9, 3, 3, 2), {"dilations": (3, 2), "pads": (0, 3, 1, 0)}),
    ((1, 5, 5, 32), (160, 3, 3, 8), {"pads": (1, 1, 1, 1)}),
    ((1, 3, 4, 2), (5, 3, 4, 2), {}),  # as large as the input
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((0, 6, 7, 8), (8, 3, 3, 8), {"pads": (1, 1, 1, 1)}),  # an empty batch
    ((1, 4, 4, 2048), (17, 1, 1, 2048), {}),
    ((1, 3, 11, 1076), (20, 1, 1, 1076), {}),  # four times a prime
    ((1, 3, 18, 512), (16, 3, 3, 512), {"pads": (1, 1, 1, 1)}),
    ((1, 7, 7, 64), (40, 3, 3, 64), {"pads": (1, 1, 1, 1)}),  # rows of 7 pixels, two of them in a tile
]
LARGE: list[Layer] = [  # several parts
    ((1, 33, 40, 32), (64, 3, 3, 32), {"pads": (1, 1, 1, 1)}),
    ((2, 28, 28, 128), (100, 1, 1, 128), {}),
]
DEPTHWISE: list[Layer] = [
    ((1, 9, 20, 64), (64, 3, 3, 1), {"pads": (1, 1, 1, 1)}),
    ((2, 9, 8, 24), (24, 3, 3, 1), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    ((1, 8, 13, 130), (130, 3, 3, 1), {"pads": (0, 1, 2, 0), "strides": (1, 2)}),
    ((1, 9, 8, 96), (96, 5, 5, 1), {"pads": (2, 2, 2, 2)}),
    ((1, 9, 8, 16), (16, 5, 5, 1), {"pads": (2, 2, 2, 2), "strides": (2, 2)}),
    ((1, 9, 10, 3), (3, 3, 3, 1), {"dilations": (2, 2), "pads": (2, 2, 2, 2)}),
    ((1, 7, 9, 40), (40, 7, 1, 1), {"pads": (3, 0, 3, 0)}),
    ((1, 1, 9, 33), (33, 1, 3, 1), {}),
    ((1, 6, 7, 4), (8, 3, 3, 1), {"strides": (2, 1)}),  # two outputs for each input
    ((0, 6, 7, 8), (8, 3, 3, 1), {"pads": (1, 1, 1, 1)}),
]
LARGE_DEPTHWISE: list[Layer] = [
    ((1, 57, 60, 96), (96, 3, 3, 1), {"pads": (1, 1, 1, 1)}),
    ((2, 7, 6, 1100), (1100, 3, 3, 1), {"pads": (1, 1, 1, 1)}),  # parts of channels
]

TILES: list[Layer] = [  # where tiles of 16 pixels begin and end, panels of 16, 32 and 64 channels, pieces of k
    ((1, 9, 8, 64), (64, 3, 3, 64), {"pads": (1, 1, 1, 1)}),
    ((2, 5, 7, 48), (96, 3, 3, 48), {"pads": (1, 1, 1, 1)}),
    ((3, 4, 5, 32), (32, 3, 3, 32), {"pads": (0, 1, 2, 0)}),
    ((1, 17, 1, 16), (16, 3, 1, 16), {"pads": (1, 0, 1, 0)}),
    ((1, 1, 16, 64), (160, 1, 1, 64), {}),  # one tile
    ((1, 1, 15, 64), (160, 1, 1, 64), {}),  # less
    ((1, 2, 33, 128), (176, 1, 1, 128), {}),
    ((2, 9, 9, 36), (80, 3, 3, 36), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),  # phases
    ((1, 12, 10, 32), (64, 2, 3, 32), {"strides": (2, 1), "pads": (1, 1, 0, 1)}),
    ((1, 14, 13, 16), (48, 1, 1, 16), {"strides": (3, 2)}),
    ((1, 11, 12, 64), (40, 3, 3, 64), {"dilations": (2, 1), "pads": (2, 1, 2, 1)}),
    ((1, 11, 12, 64), (40, 3, 3, 64), {"dilations": (1, 2), "pads": (1, 2, 1, 2)}),
    ((2, 13, 15, 3), (32, 3, 3, 3), {"strides": (2, 2), "pads": (0, 0, 1, 1)}),  # rows beside each other
    ((1, 12, 30, 1), (20, 5, 5, 1), {"pads": (2, 2, 2, 2)}),
    ((1, 9, 40, 4), (64, 6, 4, 4), {"strides": (1, 2)}),
    ((1, 8, 9, 9), (33, 2, 3, 9), {"pads": (1, 1, 0, 1)}),
]
LARGE_TILES: list[Layer] = [
    ((1, 30, 31, 64), (192, 3, 3, 64), {"pads": (1, 1, 1, 1)}),
    ((2, 14, 14, 256), (544, 1, 1, 256), {}),
    ((3, 20, 21, 48), (96, 3, 3, 48), {"pads": (1, 2, 1, 0)}),
    ((2, 60, 61, 3), (64, 7, 7, 3), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
    ((1, 1, 4000, 32), (64, 1, 9, 32), {"pads": (0, 4, 0, 4)}),  # a long line
    ((1, 7, 7, 512), (160, 3, 3, 512), {"pads": (1, 1, 1, 1)}),  # groups of weights
]


def layers(shapes: list[Layer], large: list[Layer], seed: int) -> list[Case]:
    """Every shape with every form of the rescale."""
    draw = Draw(seed)
    cases = []
    for count, found in ((3, shapes), (1, large)):
        turns = variants(count)
        for x_shape, w_shape, attributes in found:
            for form, (x, y, w, zero_points, residual) in itertools.islice(turns, count * len(FORMS)):
                types = {"x": x, "y": y, "w": w, "zero_points": zero_points, "residual": residual}
                cases.append(scaled(draw, conv(draw, x_shape, w_shape, **types, **attributes), form))
    return cases


def dense() -> list[Case]:
    return layers(LAYERS, LARGE, 1)


def depthwise() -> list[Case]:
    return layers(DEPTHWISE, LARGE_DEPTHWISE, 2)


def tiles() -> list[Case]:
    """Results and residuals of bytes, with every form of the rescale."""
    draw, turns = (
        Draw(4),
        itertools.cycle(itertools.product(EIGHT, EIGHT, WEIGHTS, ("", "uint8", "int8"), (*FORMS[:3], "raw"))),
    )
    cases = []
    for count, found in ((9, TILES), (2, LARGE_TILES)):
        for x_shape, w_shape, attributes in found:
            for x, y, w, residual, form in itertools.islice(turns, count):
                case = conv(draw, x_shape, w_shape, x=x, y=y, w=w, residual=residual, **attributes)
                cases.append(scaled(draw, case, form))
                if residual and form == "fixed":  # a multiplier for each channel
                    several = cases[-1].arrays["residual_multiplier"] - np.arange(w_shape[0], dtype=np.int32)
                    cases.append(with_(cases[-1], {"residual_multiplier": several}))
    return cases


def types() -> list[Case]:
    """Every combination of types, zero points and residuals, on one dense and one depthwise layer."""
    draw = Draw(3)
    cases = []
    for x, w, y, zero_points, residual in itertools.product(EIGHT, WEIGHTS, ALL, ("none", "one", "many"), RESIDUALS):
        for x_shape, w_shape in (((1, 4, 5, 12), (40, 2, 2, 12)), ((1, 5, 6, 40), (40, 3, 3, 1))):
            case = conv(draw, x_shape, w_shape, x=x, w=w, y=y, zero_points=zero_points, residual=residual)
            cases.append(scaled(draw, case, FORMS[len(cases) // 2 % 4]))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    group = draw(st.sampled_from([1, 1, 2, 3, 16, 70]))
    per_group = draw(st.integers(1, 40 if group == 1 else 5 if group < 16 else 1))
    filters = draw(st.integers(1, 150 if group == 1 else 20 if group < 16 else 1))
    kernel = draw(st.one_of(pairs, st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7)])))
    strides, dilations = draw(pairs), draw(pairs)
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    more = draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    size = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) + more[i] for i in (0, 1)]
    values = Draw(draw(st.integers(0, 2**32)))
    form = draw(st.sampled_from(FORMS))
    case = conv(
        values,
        (draw(st.integers(0, 3)), *size, group * per_group),
        (group * filters, *kernel, per_group),
        x=draw(st.sampled_from(EIGHT)),
        w=draw(st.sampled_from(WEIGHTS)),
        y=draw(st.sampled_from(ALL)),
        zero_points=draw(st.sampled_from(["none", "one", "many"])),
        residual=draw(st.sampled_from(RESIDUALS)),
        strides=strides,
        pads=pads,
        dilations=dilations,
    )
    return scaled(values, case, form)


CONV = conv(Draw(5), (1, 4, 4, 4), (6, 3, 3, 2))
CONV_ADD = conv(Draw(6), (1, 4, 4, 4), (6, 3, 3, 4), residual="int8")


CASES = OperatorCases(
    nodes,
    small,
    {"types": body_types, "shapes": body_shapes, "residuals": body_residuals, "extremes": body_extremes},
    {"dense": dense, "depthwise": depthwise, "tiles": tiles, "types": types, "extremes": body_extremes},
    drawn(),
    drawn_bodies(),
    [
        (with_(CONV, {"x": np.zeros((1, 4, 4, 4), np.int32)}), "Conv: x must be uint8 or int8, not int32"),
        (with_(CONV, {"bias": ints(1, 2)}), "Conv: bias has 2 values for 6 channels"),
        (with_(CONV, {"multiplier": ints(1, 2)}), "Conv: multiplier has 2 values for 6 channels"),
        (with_(CONV, {"shift": ints(63)}), "Conv: shift 63 is not in [1, 62]"),
        (with_(CONV, {"w_zero_point": ints(0)}), "Conv: w_zero_point must be int8"),
        (with_(CONV, {"w": np.zeros((6, 3, 3), np.int8)}), "Conv: w must have 4 dimensions"),
        (with_(CONV, group=4), "Conv: group 4 does not divide the 6 channels"),
        (with_(CONV, strides=(0, 1)), "Conv: strides must be 2 integers from 1 to 2147483647, not [0,1]"),
        (with_(CONV, strides=(2**40, 1)), "Conv: strides must be 2 integers from 1 to 2147483647"),
        (with_(CONV, group=2**62), "Conv: group must be an integer from 1 to 2147483647"),
        (with_(CONV, y_type=2**32 + 2), "type inference failed"),
        (with_(CONV, pads=(0, 0, -1, 0)), "Conv: pads must be 4 integers from 0 to 2147483647, not [0,0,-1,0]"),
        (with_(CONV, x_zero_point=256), "Conv: x_zero_point 256 is outside the input's type"),
        (with_(CONV_ADD, residual_zero_point=128), "ConvAdd: residual_zero_point 128 is outside the input's type"),
    ],
    [
        (with_(CONV, {"x": np.zeros((1, 4, 4, 3), np.uint8)}), "x has 3 channels, w expects 4"),
        (with_(CONV, {"x": np.zeros((4, 4, 4), np.uint8)}), "x must have 4 dimensions [N, H, W, C]"),
        (
            with_(CONV_ADD, {"residual": np.zeros((1, 2, 3, 6), np.int8)}),
            "residual has shape [1,2,3,6], y has [1,2,2,6]",
        ),
    ],
)
