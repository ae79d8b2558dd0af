"""Conv, ConvAdd, Gemm and GemmAdd on every tier, against exact integers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.execution import runtime
from support.cases.operator_cases import Case, Draw
from support.kernel_runs import Bundle, bundle, check, chosen, needs_library, on_every_tier, refusal, run_refusal

pytestmark = needs_library

EIGHT = ("uint8", "int8")
ALL = ("uint8", "int8", "int32")
WEIGHTS = ("int8", "int4")
RESIDUALS = ("", *ALL)
RAW = {"y_zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
UNEVEN = {"strides": (2, 1), "pads": (1, 0, 2, 1), "dilations": (1, 2)}


def with_(case: Case, arrays: dict[str, np.ndarray] | None = None, **attributes: Any) -> Case:
    return replace(case, arrays=case.arrays | (arrays or {}), attributes=case.attributes | attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def scaled(draw: Draw, case: Case, form: str) -> Case:
    """The case with multipliers that spread y over its range, and shifts of one form.

    form: fixed (32 everywhere), uniform (30), general (one for each channel), wide (sums that leave int32 before they
    saturate), raw (the accumulator itself).
    """
    raw = with_(case, {"multiplier": ints(2), "shift": ints(1)}, **RAW)
    for name in ("residual", "residual_multiplier"):
        raw.arrays.pop(name, None)
    raw.attributes.pop("residual_zero_point", None)
    raw = replace(raw, op=case.op.removesuffix("Add"))
    if form == "raw":
        return raw
    acc = raw.expected().astype(float)
    size = float(np.sqrt(np.mean(acc**2))) if acc.size else 1.0
    channels = case.arrays["bias"].size
    ratio = np.exp(draw.rng.uniform(-0.7, 0.7, channels)) * 50 / max(size, 100.0)
    if form == "wide":
        ratio = np.minimum(ratio * 2**20, 2**29)
    shift = {
        "fixed": np.array([32]),
        "uniform": np.array([30]),
        "general": draw.rng.integers(20, 38, channels),
        "wide": draw.rng.integers(1, 12, channels),
    }[form]
    multiplier = np.minimum(np.rint(ratio * 2.0**shift), 2**31 - 1)
    arrays = {"shift": shift.astype(np.int32), "multiplier": multiplier.astype(np.int32)}
    if "residual" in case.arrays:
        bits = np.clip(shift - (15 if case.arrays["residual"].dtype == np.int32 else 2), 0, 30)
        arrays["residual_multiplier"] = np.broadcast_to(2**bits * 9 // 10, channels).astype(np.int32)
    return with_(case, arrays)


# x, w [M, kH, kW, C / group], attributes
Layer = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]
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
FORMS = ("fixed", "uniform", "general", "wide", "raw")


VARIANTS = list(itertools.product(EIGHT, ALL, WEIGHTS, ("none", "one", "none", "many"), RESIDUALS))


def variants(count: int) -> Iterator[tuple[str, tuple[str, str, str, str, str]]]:
    """Forms of the rescale, `count` of each, with types, zero points and residuals that take turns."""
    place = 0
    while True:
        for form in FORMS:
            for _ in range(count):
                place = (place + 67) % len(VARIANTS)  # prime to their number: neighbours differ in everything
                yield form, VARIANTS[place]


def layers(shapes: list[Layer], large: list[Layer], seed: int) -> list[Case]:
    """Every shape with every form of the rescale."""
    draw = Draw(seed)
    cases = []
    for count, found in ((3, shapes), (1, large)):
        turns = variants(count)
        for x_shape, w_shape, attributes in found:
            for form, (x, y, w, zero_points, residual) in itertools.islice(turns, count * len(FORMS)):
                types = {"x": x, "y": y, "w": w, "zero_points": zero_points, "residual": residual}
                cases.append(scaled(draw, draw.conv(x_shape, w_shape, **types, **attributes), form))
    return cases


def dense() -> list[Case]:
    return layers(LAYERS, LARGE, 1)


def depthwise() -> list[Case]:
    return layers(DEPTHWISE, LARGE_DEPTHWISE, 2)


def types() -> list[Case]:
    """Every combination of types, zero points and residuals, on one dense and one depthwise layer."""
    draw = Draw(3)
    cases = []
    for x, w, y, zero_points, residual in itertools.product(EIGHT, WEIGHTS, ALL, ("none", "one", "many"), RESIDUALS):
        for x_shape, w_shape in (((1, 4, 5, 12), (40, 2, 2, 12)), ((1, 5, 6, 40), (40, 3, 3, 1))):
            case = draw.conv(x_shape, w_shape, x=x, w=w, y=y, zero_points=zero_points, residual=residual)
            cases.append(scaled(draw, case, FORMS[len(cases) // 2 % 4]))
    return cases


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
                cases.append(scaled(draw, draw.gemm(x_shape, columns, **types), form))
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
    count = 70_000  # 70 000 · 255 · 127 > 2³¹
    for op, shape in (("Conv", (1, 1, 1, count)), ("Gemm", (count, 1))):
        arrays = {
            "x": np.full((1, 1, 1, count) if op == "Conv" else (1, count), 255, np.uint8),
            "w": np.full(shape, 127, np.int8),
            "bias": ints(5),
            "multiplier": ints(2),
            "shift": ints(1),
            "w_zero_point": np.array([126], np.int8),
        }
        cases.append(Case(op, arrays, RAW))
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


TABLE: dict[str, Callable[[], list[Case]]] = {f.__name__: f for f in (dense, depthwise, types, matrices, extremes)}


@functools.cache
def cases_of(name: str) -> Bundle:
    return bundle(TABLE[name]())


@on_every_tier
@pytest.mark.parametrize("name", TABLE)
def test_equals_exact_integers(name: str, tier: str) -> None:
    with chosen(tier):
        check(cases_of(name))


def test_the_table_tells_a_wrong_result() -> None:
    """Most outputs lie inside [qmin, qmax]: a test of saturated values would not see much."""
    for name in ("dense", "depthwise", "types", "matrices"):
        made = cases_of(name)
        inside = [
            np.mean((y > case.attributes["qmin"]) & (y < case.attributes["qmax"]))
            for case, y in zip(made.cases, made.expected, strict=True)
            if y.size and case.attributes["y_type"] != 6
        ]
        assert np.mean(inside) > 0.4, (name, np.mean(inside))


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
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
    case = values.conv(
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


@st.composite
def gemms(draw: st.DrawFn) -> Case:
    rows = tuple(draw(st.lists(st.integers(0, 20), min_size=1, max_size=2)))
    values = Draw(draw(st.integers(0, 2**32)))
    form = draw(st.sampled_from(FORMS))
    case = values.gemm(
        (*rows, draw(st.integers(1, 300))),
        draw(st.integers(1, 300)),
        x=draw(st.sampled_from(EIGHT)),
        w=draw(st.sampled_from(WEIGHTS)),
        y=draw(st.sampled_from(ALL)),
        zero_points=draw(st.sampled_from(["none", "one", "many"])),
        residual=draw(st.sampled_from(RESIDUALS)),
    )
    return scaled(values, case, form)


@on_every_tier
@settings(max_examples=12)
@given(cases=st.lists(st.one_of(convolutions(), gemms()), min_size=1, max_size=6))
def test_drawn_shapes(tier: str, cases: list[Case]) -> None:
    with chosen(tier):
        check(bundle(cases))


CONV = Draw(5).conv((1, 4, 4, 4), (6, 3, 3, 2))
CONV_ADD = Draw(6).conv((1, 4, 4, 4), (6, 3, 3, 4), residual="int8")
GEMM = Draw(7).gemm((2, 8), 5)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(CONV, {"x": np.zeros((1, 4, 4, 4), np.int32)}), "Conv: x must be uint8 or int8, not int32"),
        (with_(CONV, {"bias": ints(1, 2)}), "Conv: bias has 2 values for 6 channels"),
        (with_(CONV, {"multiplier": ints(1, 2)}), "Conv: multiplier has 2 values for 6 channels"),
        (with_(CONV, {"shift": ints(63)}), "Conv: shift 63 is not in [1, 62]"),
        (with_(CONV, {"w_zero_point": ints(0)}), "Conv: w_zero_point must be int8"),
        (with_(CONV, {"w": np.zeros((6, 3, 3), np.int8)}), "Conv: w must have 4 dimensions"),
        (with_(CONV, group=4), "Conv: group 4 does not divide the 6 channels"),
        (with_(CONV, strides=(0, 1)), "Conv: strides must be two positive integers"),
        (with_(CONV, pads=(0, 0, -1, 0)), "Conv: pads must be four non-negative integers"),
        (with_(CONV, x_zero_point=256), "Conv: x_zero_point 256 is outside the input's type"),
        (with_(CONV_ADD, residual_zero_point=128), "ConvAdd: residual_zero_point 128 is outside the input's type"),
        (with_(GEMM, {"w": np.zeros((1, 8, 5), np.int8)}), "Gemm: w must have 2 dimensions [K, N]"),
    ],
)
def test_refuses_a_node_that_makes_no_sense(case: Case, message: str) -> None:
    assert message in refusal(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (with_(CONV, {"x": np.zeros((1, 4, 4, 3), np.uint8)}), "x has 3 channels, w expects 4"),
        (with_(CONV, {"x": np.zeros((4, 4, 4), np.uint8)}), "x must have 4 dimensions [N, H, W, C]"),
        (
            with_(CONV_ADD, {"residual": np.zeros((1, 2, 3, 6), np.int8)}),
            "residual has shape [1,2,3,6], y has [1,2,2,6]",
        ),
        (with_(GEMM, {"x": np.zeros((2, 7), np.uint8)}), "x has rows of 7 values, w has 8 rows"),
        (with_(GEMM, {"x": np.zeros(8, np.uint8)}), "x must have at least 2 dimensions"),
    ],
)
def test_refuses_inputs_that_do_not_fit(case: Case, message: str) -> None:
    assert message in run_refusal(case)


def test_int4_weights_are_read_low_nibble_first() -> None:
    w = np.arange(-8, 8).reshape(8, 2).astype(np.int8).astype(ml_dtypes.int4)
    case = with_(Draw(8).gemm((3, 8), 2, w="int4"), {"w": w})
    assert case.expected().std() > 0
    check(bundle([scaled(Draw(8), case, "raw")]))


@on_every_tier
def test_a_kernel_that_does_not_fit_the_image_gives_nothing(tier: str) -> None:
    """Also where a stride would make the negative room for it round to zero."""
    constants = {
        "w": np.ones((5, 3, 3, 4), np.int8),
        "bias": np.zeros(5, np.int32),
        "multiplier": ints(2),
        "shift": ints(1),
        "w_zero_point": np.zeros(1, np.int8),
    }
    node = helper.make_node("Conv", ["x", *constants], ["y"], domain="com.onnxq", strides=[2, 2], **RAW)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", "h", "w_", 4])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.onnxq", 1)]
    with chosen(tier):
        session = runtime.session(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads=1)
    for height, width, shape in (
        (2, 5, (1, 0, 2, 5)),
        (5, 2, (1, 2, 0, 5)),
        (1, 1, (1, 0, 0, 5)),
        (3, 3, (1, 1, 1, 5)),
    ):
        (y,) = session.run(None, {"x": np.ones((1, height, width, 4), np.uint8)})
        assert y.shape == shape
        assert (y == 36).all()
