"""Function bodies against exact integers: onnxruntime without the kernels at two levels, and ReferenceEvaluator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cases.operator_cases import Case, Draw
from support.prove.operator_bodies import check_body

EIGHT = ("uint8", "int8")
ALL = ("uint8", "int8", "int32")
LAYERS = tuple(itertools.product(EIGHT, ("int8", "int4"), ("none", "one", "many"), ALL))
PAIRS_8 = tuple(itertools.product(EIGHT, EIGHT))
PAIRS = tuple(itertools.product(ALL, ALL))
UNEVEN = {"strides": (2, 1), "pads": (1, 0, 2, 1), "dilations": (1, 2)}
few = settings(max_examples=15)  # each makes two sessions


@pytest.mark.parametrize(("x", "w", "zero_points", "y"), LAYERS)
def test_conv_types(x: str, w: str, zero_points: str, y: str) -> None:
    check_body(Draw(1).conv((2, 7, 6, 8), (12, 3, 2, 4), x=x, w=w, y=y, zero_points=zero_points, **UNEVEN))


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "attributes"),
    [
        ((1, 5, 5, 3), (4, 1, 1, 3), {}),
        ((2, 1, 9, 4), (6, 1, 3, 4), {"pads": (0, 1, 0, 1)}),  # of one dimension
        ((1, 7, 7, 3), (8, 7, 7, 3), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
        ((1, 6, 7, 8), (8, 3, 3, 1), {"pads": (1, 1, 1, 1)}),  # depthwise
        ((1, 6, 7, 4), (8, 3, 3, 1), {"strides": (2, 1)}),  # depthwise, two outputs for each input
        ((1, 9, 9, 6), (9, 3, 3, 2), {"dilations": (3, 2), "pads": (0, 3, 1, 0)}),
        ((1, 3, 4, 2), (5, 3, 4, 2), {}),  # as large as the input
        ((0, 6, 7, 8), (8, 3, 3, 1), {"pads": (1, 1, 1, 1)}),  # an empty batch
    ],
)
@pytest.mark.parametrize("vectors", [True, False])
def test_conv_shapes(x_shape: tuple, w_shape: tuple, attributes: dict, vectors: bool) -> None:
    check_body(Draw(2).conv(x_shape, w_shape, x="int8", zero_points="many", vectors=vectors, **attributes))


@pytest.mark.parametrize("residual", ALL)
@pytest.mark.parametrize(("zero_points", "vectors"), [("none", False), ("many", True)])
@pytest.mark.parametrize("y", ALL)
def test_conv_add(residual: str, zero_points: str, vectors: bool, y: str) -> None:
    draw = Draw(3)
    check_body(draw.conv((2, 5, 5, 4), (6, 3, 3, 2), y=y, residual=residual, zero_points=zero_points, vectors=vectors))
    check_body(draw.conv((0, 5, 5, 4), (6, 3, 3, 4), y=y, residual=residual, vectors=vectors))


@few
@given(data=st.data())
def test_conv_drawn(data: st.DataObject) -> None:
    group = data.draw(st.integers(1, 4), "group")
    per_group, filters = data.draw(st.integers(1, 5), "C/g"), data.draw(st.integers(1, 4), "M/g")
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilations = (data.draw(pairs, name) for name in ("kernel", "strides", "dilations"))
    pads = data.draw(st.tuples(*[st.integers(0, 3)] * 4), "pads")
    more = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)), "room")
    # At least as large as the kernel, with the padding.
    size = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) + more[i] for i in (0, 1)]
    check_body(
        Draw(data.draw(st.integers(0, 2**32), "seed")).conv(
            (data.draw(st.integers(0, 2), "N"), *size, group * per_group),
            (group * filters, *kernel, per_group),
            x=data.draw(st.sampled_from(EIGHT), "x"),
            w=data.draw(st.sampled_from(["int8", "int4"]), "w"),
            zero_points=data.draw(st.sampled_from(["none", "one", "many"]), "zero points"),
            residual=data.draw(st.sampled_from(["", *ALL]), "residual"),
            strides=strides,
            pads=pads,
            dilations=dilations,
        )
    )


def raw(channels: int) -> dict[str, np.ndarray]:
    """The identity rescale: the accumulator itself."""
    return {"multiplier": np.full(channels, 2, np.int32), "shift": np.full(channels, 1, np.int32)}


WIDE = {"qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_products_that_leave_int32_before_the_zero_points_are_taken_off(op: str) -> None:
    count = 70_000  # 70 000 · 255 · 127 > 2³¹
    x = np.full((1, 1, 1, count) if op == "Conv" else (1, count), 255, np.uint8)
    w = np.full((1, 1, 1, count) if op == "Conv" else (count, 1), 127, np.int8)
    arrays = {"x": x, "w": w, "bias": np.array([5], np.int32), **raw(1), "w_zero_point": np.array([126], np.int8)}
    check_body(Case(op, arrays, WIDE))


def test_an_accumulator_at_the_ends_of_int32() -> None:
    x, w = np.full((1, 2), 255, np.uint8), np.array([[127, -128], [127, -128]], np.int8)
    bias = np.array([2**31 - 1 - 2 * 255 * 127, -(2**31) + 2 * 255 * 128], np.int32)
    for b, c in ((2, 1), (2**31 - 1, 1), (2**31 - 1, 62), (0, 62), (1, 62)):
        rescale = {"multiplier": np.array([b], np.int32), "shift": np.array([c], np.int32)}
        arrays = {"x": x, "w": w, "bias": bias, **rescale, "w_zero_point": np.zeros(1, np.int8)}
        check_body(Case("Gemm", arrays, WIDE))


@pytest.mark.parametrize(("x", "w", "zero_points", "y"), LAYERS)
def test_gemm_types(x: str, w: str, zero_points: str, y: str) -> None:
    check_body(Draw(4).gemm((3, 20), 7, x=x, w=w, y=y, zero_points=zero_points, vectors=zero_points != "one"))


@pytest.mark.parametrize("x_shape", [(1, 64), (2, 3, 4, 20), (1, 1), (0, 20), (2, 0, 20)])
@pytest.mark.parametrize("columns", [1, 6])
@pytest.mark.parametrize("residual", ["", *ALL])
def test_gemm_shapes(x_shape: tuple, columns: int, residual: str) -> None:
    check_body(Draw(5).gemm(x_shape, columns, x="int8", zero_points="many", residual=residual))


@pytest.mark.parametrize(("a", "b"), PAIRS_8)
@pytest.mark.parametrize("y", ALL)
def test_matmul(a: str, b: str, y: str) -> None:
    draw = Draw(6)
    for shapes in (((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4, 5), (2, 5, 3))):
        check_body(draw.matmul(*shapes, a=a, b=b, y=y))
    check_body(draw.matmul((2, 0, 4), (4, 5), a=a, b=b, y=y))


@pytest.mark.parametrize(("a", "b"), PAIRS_8)
@pytest.mark.parametrize("y", ALL)
def test_mul(a: str, b: str, y: str) -> None:
    draw = Draw(7)
    for shapes in (((2, 3), (2, 3)), ((2, 3), (2, 1)), ((3,), ()), ((), ()), ((0, 3), (3,)), ((2, 1, 4), (5, 4))):
        check_body(draw.mul(*shapes, a=a, b=b, y=y))


SUMS = [
    ((2, 3, 4, 5), (2, 3, 4, 5), -1, (5, 5, 5)),
    ((2, 3, 4, 5), (2, 3, 4, 5), 1, (3, 1, 3)),
    ((2, 3, 4, 5), (4, 1), -2, (1, 4, 1)),
    ((5,), (2, 1, 4, 5), 0, (2, 1, 2)),
    ((2, 1, 1, 5), (2, 3, 4, 5), -1, (1, 1, 5)),
    ((3,), (), 0, (3, 1, 1)),
    ((), (), -1, (1, 1, 1)),
    ((0, 3), (3,), 1, (3, 3, 3)),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums(op: str, a: str, b: str) -> None:
    draw = Draw(8)
    for (a_shape, b_shape, axis, lengths), y in zip(SUMS, itertools.cycle(ALL)):
        check_body(draw.add(a_shape, b_shape, op=op, a=a, b=b, y=y, axis=axis, lengths=lengths))


@few
@given(data=st.data())
def test_sums_drawn(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4), "y")
    axis = data.draw(st.integers(-len(shape), len(shape) - 1), "axis")
    shapes = []
    for name in ("a", "b"):
        kept = [data.draw(st.booleans(), f"{name} broadcast") for _ in shape]
        start = data.draw(st.integers(0, len(shape)), f"{name} from")
        shapes.append(tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))[start:])
    length = np.broadcast_shapes(*shapes, (1,) * len(shape))[axis]
    check_body(
        Draw(data.draw(st.integers(0, 2**32), "seed")).add(
            *shapes,
            op=data.draw(st.sampled_from(["Add", "Sub"]), "op"),
            a=data.draw(st.sampled_from(ALL), "a type"),
            b=data.draw(st.sampled_from(ALL), "b type"),
            # The axis is one of y, whose rank is that of the larger input.
            axis=axis if max(map(len, shapes)) == len(shape) else -1,
            lengths=tuple(
                data.draw(st.sampled_from([1, length]), "vector") if max(map(len, shapes)) == len(shape) else 1
                for _ in range(3)
            ),
        )
    )


@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_requantize(x: str, y: str) -> None:
    draw = Draw(9)
    for axis in range(-3, 3):
        channels = (2, 3, 4)[axis]
        check_body(draw.requantize((2, 3, 4), x=x, y=y, axis=axis, lengths=(channels, 1 if axis < 0 else channels)))
    for shape in ((), (0, 3), (1,)):
        check_body(draw.requantize(shape, x=x, y=y))


@settings(max_examples=50)
@given(
    terms=st.lists(
        st.tuples(
            st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-300, 300)),
            st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2**30, 2**31 - 1])),
            st.one_of(st.integers(1, 62), st.sampled_from([1, 31, 32, 33, 62])),
        ),
        min_size=1,
        max_size=200,
    ),
    y=st.sampled_from(ALL),
    seed=st.integers(0, 2**32),
)
def test_rescale(terms: list[tuple[int, int, int]], y: str, seed: int) -> None:
    x, b, c = (np.array(column, np.int32) for column in zip(*terms, strict=True))
    arrays = {"x": x, "multiplier": b, "shift": c}
    check_body(Case("Requantize", arrays, {"axis": 0} | Draw(seed).result(y)))


def test_halves_go_up_and_the_64_bit_value_saturates() -> None:
    x = np.array([1, -1, -3, 3, 2**31 - 1, 2**31 - 1, -(2**31), -(2**31)], np.int32)
    b = np.array([1, 1, 1, 2**30, 3, 2**30, 2**30, 2**31 - 1], np.int32)
    c = np.array([1, 1, 1, 31, 1, 29, 29, 62], np.int32)
    attributes = {"qmin": -128, "qmax": 127, "y_type": 3}
    case = Case("Requantize", {"x": x, "multiplier": b, "shift": c}, attributes)
    assert case.expected().tolist() == [1, 0, -1, 2, 127, 127, -128, -1]
    check_body(case)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("y", ALL)
def test_concat(count: int, y: str) -> None:
    kinds = tuple(ALL[(i + count) % 3] for i in range(count))
    shapes = tuple((2, 3, i + 1, 2) for i in range(count))
    draw = Draw(10)
    for axis in (2, -2):
        check_body(draw.concat(shapes, kinds, axis=axis, y=y))
    check_body(draw.concat(((0, 2), (0, 3), *[(0, 1)] * (count - 2)), kinds, axis=1, y=y))


WINDOWS = [
    {"kernel_shape": (3, 3)},
    {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"kernel_shape": (2, 3), "pads": (1, 1, 1, 1), "dilations": (2, 1)},
    {"kernel_shape": (1, 1), "strides": (2, 2)},
    {"kernel_shape": (6, 7)},
    {"kernel_shape": (1, 2), "pads": (3, 2, 3, 2)},  # some windows hold nothing but padding
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("x", ALL)
def test_average_pool(x: str, window: dict) -> None:
    draw = Draw(11)
    for shape, y in zip(((2, 6, 7, 3), (1, 6, 7, 1), (0, 6, 7, 3)), ALL, strict=True):
        case = draw.average_pool(shape, x=x, y=y, **window)
        check_body(case)
        places = case.expected().shape[1:3]
        check_body(draw.average_pool(shape, x=x, y=y, lengths=(*places, 1), **window))


@pytest.mark.parametrize("axes", [(1, 2), (0,), (2, 3), (1,), (0, 1, 2, 3), (3,)])
@pytest.mark.parametrize("x", ALL)
def test_reduce_mean(x: str, axes: tuple) -> None:
    draw = Draw(12)
    for shape, y in zip(((2, 3, 4, 5), (1, 7, 7, 3), (0, 3, 4, 5)), ALL, strict=True):
        for attributes in ({}, {"keepdims": 1}, {"keepdims": 0}):
            check_body(draw.reduce_mean(shape, x=x, y=y, axes=axes, **attributes))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("x", EIGHT)
def test_max_pool(x: str, window: dict) -> None:
    draw = Draw(13)
    for shape in ((2, 6, 7, 3), (0, 6, 7, 3)):
        check_body(draw.max_pool(shape, x=x, **window))


@pytest.mark.parametrize(("x", "y"), PAIRS_8)
def test_lookup_table(x: str, y: str) -> None:
    for shape in ((2, 30, 40), (), (0, 4)):
        check_body(Draw(14).lookup_table(shape, x=x, y=y))


@pytest.mark.parametrize("x", EIGHT)
def test_channels_last(x: str) -> None:
    for shape in (
        (2, 3, 30, 40),
        (1, 5, 7),
        (2, 1, 3, 4, 5),
        (2, 3, 1, 2, 1, 4),
        (0, 3, 4, 5),
        (2, 0, 4),
        (2, 3, 0, 5),
    ):
        check_body(Draw(18).channels_last(shape, x=x))


@pytest.mark.parametrize("x", EIGHT)
@pytest.mark.parametrize("y", ALL)
def test_softmax(x: str, y: str) -> None:
    draw = Draw(15)
    for axis in range(-3, 3):
        check_body(draw.softmax((2, 5, 7), x=x, y=y, axis=axis, scale=0.01 if axis < 0 else 0.5))
    check_body(draw.softmax((1000,), x=x, y=y, scale=0.0001))
    check_body(draw.softmax((0, 4), x=x, y=y))


@pytest.mark.parametrize("x", ALL)
@pytest.mark.parametrize("y", ALL)
@pytest.mark.parametrize("center", [0, 1])
def test_layer_norm(x: str, y: str, center: int) -> None:
    draw = Draw(16)
    for limit in (3, 2**14, 2**31):
        check_body(draw.layer_norm((2, 3, 40), x=x, y=y, limit=limit, center=center, epsilon=limit))
    check_body(draw.layer_norm((5,), x=x, y=y, vectors=False, center=center, epsilon=2**61))
    check_body(draw.layer_norm((3, 1), x=x, y=y, center=center))
    check_body(draw.layer_norm((0, 4), x=x, y=y, center=center))


@pytest.mark.parametrize("values", [(0, 0), (32767, 32767), (-32768, 32767), (0, 1), (-(2**31), 2**31 - 1)])
def test_layer_norm_of_the_longest_rows(values: tuple[int, int]) -> None:
    case = Draw(17).layer_norm((1, 2**15), x="int32", y="int32", epsilon=2**61)
    x = np.where(np.arange(2**15) % 2, *values).astype(np.int32).reshape(1, -1)
    for changes in ({}, {"epsilon": 0}, {"center": 0, "x_zero_point": 0}):
        check_body(Case("LayerNorm", case.arrays | {"x": x}, case.attributes | changes))


@few
@given(data=st.data())
def test_layer_norm_drawn(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 40)), "shape")
    case = Draw(data.draw(st.integers(0, 2**32), "seed")).layer_norm(
        shape,
        x=data.draw(st.sampled_from(ALL), "x"),
        y=data.draw(st.sampled_from(ALL), "y"),
        limit=2 ** data.draw(st.integers(1, 31), "bits"),
        epsilon=data.draw(st.one_of(st.integers(0, 9), st.integers(0, 2**61)), "epsilon"),
    )
    check_body(case)
