"""The NumPy operators of com.onnxq against plain loops, onnxruntime's integer operators, and refusals."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.errors import NumericError
from onnxq.operators import OPERATORS, compute

conv = OPERATORS["Conv"].compute
conv_add = OPERATORS["ConvAdd"].compute
gemm = OPERATORS["Gemm"].compute
gemm_add = OPERATORS["GemmAdd"].compute
matmul = OPERATORS["MatMul"].compute
mul = OPERATORS["Mul"].compute
requantize = OPERATORS["Requantize"].compute
average_pool = OPERATORS["AveragePool"].compute
max_pool = OPERATORS["MaxPool"].compute
reduce_mean = OPERATORS["ReduceMean"].compute
lookup_table = OPERATORS["LookupTable"].compute
channels_last = OPERATORS["ChannelsLast"].compute
add = OPERATORS["Add"].compute

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([np.uint8, np.int8])
TYPE_NUMBER = {np.uint8: 2, np.int8: 3, np.int32: 6}
RAW = {"qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}


def codes(rng: np.random.Generator, kind: Any, *shape: int) -> NDArray[Any]:
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(kind)


def result(rng: np.random.Generator, kind: Any) -> dict[str, int]:
    limits = np.iinfo(kind)
    low, high = sorted(rng.integers(limits.min, limits.max, 2, endpoint=True).tolist())
    zero_point = int(rng.integers(-128, 255))
    return {"y_zero_point": zero_point, "qmin": low, "qmax": high, "y_type": TYPE_NUMBER[kind]}


def vectors(rng: np.random.Generator, length: int, low: int, high: int) -> NDArray[np.int32]:
    """int32 of the length, or of length 1."""
    return rng.integers(low, high, int(rng.choice([1, length]))).astype(np.int32)


def at(vector: NDArray[Any], i: int) -> int:
    return int(vector[i if vector.size > 1 else 0])


def finish(total: int, shift: int, attributes: dict[str, int]) -> int:
    y = ((total + 2 ** (shift - 1)) >> shift) + attributes["y_zero_point"]
    return min(max(y, attributes["qmin"]), attributes["qmax"])


def placed(size: tuple[int, int], kernel: tuple[int, int], a: dict[str, Any]) -> tuple[range, range]:
    """The rows and columns of y."""
    pads, strides, dilations = a["pads"], a["strides"], a["dilations"]
    counts = [
        (size[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2)
    ]
    return range(counts[0]), range(counts[1])


def window(
    size: tuple[int, int], kernel: tuple[int, int], place: tuple[int, int], a: dict[str, Any]
) -> Iterator[tuple[tuple[int, int], tuple[int, int] | None]]:
    """The elements of the window at a place of y, and the pixels under them, None for padding."""
    for tap in product(range(kernel[0]), range(kernel[1])):
        row, column = (place[i] * a["strides"][i] - a["pads"][i] + tap[i] * a["dilations"][i] for i in range(2))
        inside = 0 <= row < size[0] and 0 <= column < size[1]
        yield tap, (row, column) if inside else None


def draw_window(rng: np.random.Generator, size: tuple[int, int]) -> tuple[tuple[int, int], dict[str, Any]]:
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    dilations = [int(d) if (k - 1) * d < s else 1 for k, d, s in zip(kernel, rng.integers(1, 3, 2), size, strict=True)]
    pads = [int(p) for p in rng.integers(0, 3, 4)]
    strides = [int(s) for s in rng.integers(1, 4, 2)]
    return (kernel[0], kernel[1]), {"strides": strides, "pads": pads, "dilations": dilations}


@settings(max_examples=60)
@given(seeds, kinds, st.sampled_from([np.uint8, np.int8, np.int32]), st.booleans())
def test_conv_by_loops(seed: int, x_kind: Any, y_kind: Any, with_residual: bool) -> None:
    rng = np.random.default_rng(seed)
    group, per_group, per_group_out = (int(v) for v in rng.integers(1, 4, 3))
    size = (int(rng.integers(3, 6)), int(rng.integers(3, 6)))
    kernel, a = draw_window(rng, size)
    c, m = group * per_group, group * per_group_out
    x, w = codes(rng, x_kind, 2, *size, c), codes(rng, np.int8, m, *kernel, per_group)
    if rng.random() < 0.3:
        w = w >> 4
    bias = rng.integers(-5000, 5000, m).astype(np.int32)
    zero_point = int(rng.integers(np.iinfo(x_kind).min, np.iinfo(x_kind).max))
    w_zero_point = vectors(rng, m, -128, 128).astype(np.int8)
    multiplier, shift = vectors(rng, m, 0, 2**31), vectors(rng, m, 30, 42)
    attributes = a | {"group": group, "x_zero_point": zero_point} | result(rng, y_kind)
    rows, columns = placed(size, kernel, a)
    shape = (2, len(rows), len(columns), m)
    residual_kind = rng.choice([np.uint8, np.int8, np.int32])
    residual = codes(rng, residual_kind, *shape) >> (8 if residual_kind is np.int32 else 0)
    residual_multiplier = vectors(rng, m, 0, 2**31)
    inputs = [x, w, bias, multiplier, shift, w_zero_point]
    if with_residual:
        y = conv_add(*inputs, residual, residual_multiplier, residual_zero_point=9, **attributes)
    else:
        y = conv(*inputs, **attributes)
    assert y.shape == shape and y.dtype == y_kind
    for n, i, j, o in np.ndindex(*shape):
        acc = int(bias[o])
        for (p, q), pixel in window(size, kernel, (i, j), a):
            for k in range(per_group) if pixel else ():
                value = int(x[n, pixel[0], pixel[1], o // per_group_out * per_group + k]) - zero_point
                acc += value * (int(w[o, p, q, k]) - at(w_zero_point, o))
        total = acc * at(multiplier, o)
        if with_residual:
            total += (int(residual[n, i, j, o]) - 9) * at(residual_multiplier, o)
        assert int(y[n, i, j, o]) == finish(total, at(shift, o), attributes)


@settings(max_examples=60)
@given(seeds, kinds, st.sampled_from([np.uint8, np.int8, np.int32]), st.booleans())
def test_gemm_by_loops(seed: int, x_kind: Any, y_kind: Any, with_residual: bool) -> None:
    rng = np.random.default_rng(seed)
    lead = tuple(int(v) for v in rng.integers(1, 4, int(rng.integers(1, 4))))
    depth, n = int(rng.integers(1, 9)), int(rng.integers(1, 6))
    x, w = codes(rng, x_kind, *lead, depth), codes(rng, np.int8, depth, n)
    bias = rng.integers(-5000, 5000, n).astype(np.int32)
    w_zero_point = vectors(rng, n, -128, 128).astype(np.int8)
    multiplier, shift = vectors(rng, n, 0, 2**31), vectors(rng, n, 30, 42)
    attributes = {"x_zero_point": 77} | result(rng, y_kind)
    residual, residual_multiplier = codes(rng, np.int8, *lead, n), vectors(rng, n, 0, 2**31)
    inputs = [x, w, bias, multiplier, shift, w_zero_point]
    if with_residual:
        y = gemm_add(*inputs, residual, residual_multiplier, residual_zero_point=-3, **attributes)
    else:
        y = gemm(*inputs, **attributes)
    assert y.shape == (*lead, n) and y.dtype == y_kind
    for place in np.ndindex(*lead, n):
        column = [int(v) - at(w_zero_point, place[-1]) for v in w[:, place[-1]]]
        acc = sum((int(v) - 77) * u for v, u in zip(x[place[:-1]], column, strict=True)) + int(bias[place[-1]])
        total = acc * at(multiplier, place[-1])
        if with_residual:
            total += (int(residual[place]) + 3) * at(residual_multiplier, place[-1])
        assert int(y[place]) == finish(total, at(shift, place[-1]), attributes)


@settings(max_examples=40)
@given(seeds, kinds, kinds)
def test_matmul_and_mul_by_loops(seed: int, a_kind: Any, b_kind: Any) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(v) for v in rng.integers(1, 5, 3))
    a, b = codes(rng, a_kind, 2, 1, m, k), codes(rng, b_kind, 3, k, n)
    multiplier, shift = vectors(rng, 1, 0, 2**31), vectors(rng, 1, 30, 42)
    attributes = {"a_zero_point": 5, "b_zero_point": -9} | result(rng, np.int8)
    y = matmul(a, b, multiplier, shift, **attributes)
    assert y.shape == (2, 3, m, n)
    for i, j, p, q in np.ndindex(*y.shape):
        acc = sum((int(u) - 5) * (int(v) + 9) for u, v in zip(a[i, 0, p], b[j, :, q], strict=True))
        assert int(y[i, j, p, q]) == finish(acc * int(multiplier[0]), int(shift[0]), attributes)
    a, b = codes(rng, a_kind, 2, 1, k), codes(rng, b_kind, 3, 1)
    y = mul(a, b, multiplier, shift, **attributes)
    assert y.shape == (2, 3, k)
    for i, j, p in np.ndindex(*y.shape):
        total = (int(a[i, 0, p]) - 5) * (int(b[j, 0]) + 9) * int(multiplier[0])
        assert int(y[i, j, p]) == finish(total, int(shift[0]), attributes)


@settings(max_examples=60)
@given(seeds, st.sampled_from([np.uint8, np.int8, np.int32]), st.sampled_from([np.uint8, np.int32]), st.booleans())
def test_add_sub_requantize_by_loops(seed: int, a_kind: Any, b_kind: Any, negative: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers(1, 4, 3))
    axis = int(rng.integers(-3, 3))
    length = shape[axis]
    a = codes(rng, a_kind, *shape)
    b = codes(rng, b_kind, *[int(s if rng.random() < 0.7 else 1) for s in shape[int(rng.integers(0, 3)) :]])
    # 31 bits a product of int32: the sum of two needs 64 with its half.
    b_a, b_b = vectors(rng, length, 0, 2**30), vectors(rng, length, 0, 2**30)
    shift = vectors(rng, length, 1, 62)
    attributes = {"a_zero_point": 3, "b_zero_point": 200, "axis": axis} | result(rng, np.uint8)
    y = OPERATORS["Sub" if negative else "Add"].compute(a, b, b_a, b_b, shift, **attributes)
    assert y.shape == shape and y.dtype == np.uint8
    wide = np.broadcast_to(b, shape)
    for place in np.ndindex(*shape):
        channel = place[axis]
        term = (int(wide[place]) - 200) * at(b_b, channel)
        total = (int(a[place]) - 3) * at(b_a, channel) + (-term if negative else term)
        assert int(y[place]) == finish(total, at(shift, channel), attributes)
    y = requantize(a, b_a, shift, x_zero_point=3, axis=axis, **result(np.random.default_rng(seed), np.int8))
    attributes = result(np.random.default_rng(seed), np.int8)
    for place in np.ndindex(*shape):
        total = (int(a[place]) - 3) * at(b_a, place[axis])
        assert int(y[place]) == finish(total, at(shift, place[axis]), attributes)


@settings(max_examples=60)
@given(seeds, st.sampled_from([np.uint8, np.int8, np.int32]), st.booleans())
def test_pools_by_loops(seed: int, kind: Any, by_position: bool) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(3, 7)), int(rng.integers(3, 7)))
    kernel, a = draw_window(rng, size)
    x = codes(rng, kind, 2, *size, 3) >> (8 if kind is np.int32 else 0)
    rows, columns = placed(size, kernel, a)
    shape = (len(rows), len(columns), 1) if by_position else (1,)
    multiplier = rng.integers(0, 2**31, shape).astype(np.int32)
    shift = rng.integers(30, 40, shape).astype(np.int32)
    attributes = result(rng, np.uint8)
    y = average_pool(x, multiplier, shift, kernel_shape=kernel, x_zero_point=17, **a, **attributes)
    assert y.shape == (2, len(rows), len(columns), 3) and y.dtype == np.uint8
    largest = None
    if kind is not np.int32:
        largest = max_pool(x, kernel_shape=kernel, **a)
        assert largest.shape == y.shape and largest.dtype == kind
    for n, i, j, c in np.ndindex(*y.shape):
        seen = [int(x[n, p[0], p[1], c]) for _, p in window(size, kernel, (i, j), a) if p]
        where = (i, j, 0) if by_position else (0,)
        total = sum(v - 17 for v in seen) * int(multiplier[where])
        assert int(y[n, i, j, c]) == finish(total, int(shift[where]), attributes)
        if largest is not None:
            assert int(largest[n, i, j, c]) == max(seen, default=np.iinfo(kind).min)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[0], [1, 2], [0, 1, 2]])
def test_reduce_mean(axes: list[int], keepdims: int) -> None:
    x = codes(np.random.default_rng(0), np.int8, 3, 4, 5)
    multiplier, shift = np.array([2**30 + 7], np.int32), np.array([33], np.int32)
    attributes = {"y_zero_point": 1, "qmin": -100, "qmax": 100, "y_type": 3}
    y = reduce_mean(x, multiplier, shift, axes=axes, keepdims=keepdims, x_zero_point=-2, **attributes)
    total = (x.astype(int) + 2).sum(axis=tuple(axes), keepdims=bool(keepdims))
    assert y.shape == total.shape and y.dtype == np.int8
    assert y.reshape(-1).tolist() == [finish(int(t) * (2**30 + 7), 33, attributes) for t in total.reshape(-1)]


@given(seeds, st.integers(2, 8))
def test_concat(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [codes(rng, rng.choice([np.uint8, np.int8]), 2, int(rng.integers(1, 4)), 2) for _ in range(count)]
    multiplier = rng.integers(0, 2**31, count).astype(np.int32)
    shift = rng.integers(30, 34, count).astype(np.int32)
    zero_points = rng.integers(-128, 128, count).tolist()
    attributes = result(rng, np.uint8)
    given_to = {"axis": -2, "zero_points": zero_points, **attributes}
    y = compute(f"Concat{count}", [multiplier, shift, *parts], given_to)
    expected = [
        [[finish((int(v) - z) * int(b), int(c), attributes) for v in row] for row in part[k]]
        for k in range(2)
        for part, z, b, c in zip(parts, zero_points, multiplier, shift, strict=True)
    ]
    assert y.dtype == np.uint8 and y.shape == (2, sum(p.shape[1] for p in parts), 2)
    assert y.reshape(-1, 2).tolist() == [row for part in expected for row in part]


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_lookup_table(kind: Any) -> None:
    table = codes(np.random.default_rng(0), np.int8, 256)
    x = np.arange(np.iinfo(kind).min, np.iinfo(kind).max + 1).astype(kind).reshape(16, 16)
    y = lookup_table(x, table)
    assert y.dtype == np.int8 and y.shape == (16, 16)
    assert y.reshape(-1).tolist() == table.tolist()


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 2, 2), (2, 0, 4), (0, 3, 4)])
def test_channels_last(shape: tuple[int, ...]) -> None:
    x = codes(np.random.default_rng(0), np.int8, *shape)
    y = channels_last(x)
    assert y.dtype == np.int8 and y.shape == (shape[0], *shape[2:], shape[1])
    assert y.flags.c_contiguous
    for n, c, *place in np.ndindex(shape):
        assert y[(n, *place, c)] == x[(n, c, *place)]


def evaluate(node: onnx.NodeProto, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """One standard node in onnxruntime."""
    values = [
        onnx.helper.make_tensor_value_info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in inputs.items()
    ]
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", values, [y]),
        opset_imports=[onnx.helper.make_opsetid("", 21)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize(("group", "channels", "filters"), [(1, 16, 8), (2, 8, 12), (12, 12, 12), (6, 6, 12)])
@pytest.mark.parametrize("zero_points", [(0, 0), (131, -7), (255, 127)])
def test_equals_onnxruntime_conv_integer(group: int, channels: int, filters: int, zero_points: tuple[int, int]) -> None:
    rng = np.random.default_rng(group)
    x = codes(rng, np.uint8, 2, 11, 9, channels)
    w = codes(rng, np.int8, filters, 3, 2, channels // group)
    window_of = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": group}
    y = conv(
        x,
        w,
        np.zeros(filters, np.int32),
        np.array([2], np.int32),
        np.array([1], np.int32),
        np.array([zero_points[1]], np.int8),
        x_zero_point=zero_points[0],
        **window_of,
        **RAW,
    )
    node = onnx.helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **window_of)
    # uint8 weights: onnxruntime's kernels for uint8 times int8 saturate in 16 bits on CPUs without VNNI.
    found = evaluate(
        node,
        {
            "x": np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
            "w": np.ascontiguousarray((w.astype(np.int32) + 128).astype(np.uint8).transpose(0, 3, 1, 2)),
            "xz": np.array(zero_points[0], np.uint8),
            "wz": np.array(zero_points[1] + 128, np.uint8),
        },
    )
    np.testing.assert_array_equal(y.transpose(0, 3, 1, 2), found)


@pytest.mark.parametrize("depth", [1, 64, 1000])
def test_equals_onnxruntime_matmul_integer(depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b = codes(rng, np.uint8, 3, 1, 7, depth), codes(rng, np.uint8, 2, depth, 5)
    node = onnx.helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])
    found = evaluate(node, {"a": a, "b": b, "az": np.array(100, np.uint8), "bz": np.array(128, np.uint8)})
    identity = np.array([2], np.int32), np.array([1], np.int32)
    np.testing.assert_array_equal(matmul(a, b, *identity, a_zero_point=100, b_zero_point=128, **RAW), found)
    w = (b[0].astype(np.int32) - 128).astype(np.int8)
    bias = rng.integers(-1000, 1000, 5).astype(np.int32)
    y = gemm(a[:, 0], w, bias, *identity, np.zeros(1, np.int8), x_zero_point=100, **RAW)
    np.testing.assert_array_equal(y, found[:, 0] + bias)


def test_int4_weights_may_come_as_int4() -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, np.uint8, 3, 8), rng.integers(-8, 8, (8, 4)).astype(np.int8)
    rest = [np.zeros(4, np.int32), np.array([2**30], np.int32), np.array([36], np.int32), np.zeros(1, np.int8)]
    attributes = {"qmin": 0, "qmax": 255, "y_type": 2}
    expected = gemm(x, w, *rest, **attributes)
    np.testing.assert_array_equal(gemm(x, w.astype(ml_dtypes.int4), *rest, **attributes), expected)


def test_largest_accumulators_are_exact() -> None:
    # K as long as it may be: 65793 · 255 · 128 is just below 2³¹.
    depth = 65793
    x, w = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    identity = np.array([2], np.int32), np.array([1], np.int32)
    y = gemm(x, w, np.array([-7], np.int32), *identity, np.zeros(1, np.int8), **RAW)
    assert y.tolist() == [[-255 * 128 * depth - 7]]
    with pytest.raises(NumericError, match="32-bit accumulator"):
        gemm(x, w, np.array([-(2**20)], np.int32), *identity, np.zeros(1, np.int8), **RAW)


def test_sums_that_overflow_are_refused() -> None:
    x = np.full((1, 2, 2, 1), 2**30, np.int32)
    one = np.array([1], np.int32)
    with pytest.raises(NumericError, match="sum of a window"):
        average_pool(x, one, one, kernel_shape=[2, 2], **RAW)
    with pytest.raises(NumericError, match="over the axes"):
        reduce_mean(x, one, one, axes=[1, 2], **RAW)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"qmin": 0, "qmax": 256, "y_type": 2}, "uint8"),
        ({"qmin": -1, "qmax": 5, "y_type": 2}, "uint8"),
        ({"qmin": 5, "qmax": 4, "y_type": 3}, "int8"),
        ({"qmin": 0, "qmax": 1, "y_type": 1}, "element type 1"),
    ],
)
def test_ranges_outside_the_type_are_refused(attributes: dict[str, int], message: str) -> None:
    one = np.array([1], np.int32)
    with pytest.raises(NumericError, match=message):
        requantize(np.zeros(3, np.int8), one, one, **attributes)


def test_unknown_operator_and_window_too_large() -> None:
    with pytest.raises(NumericError, match="Frobnicate"):
        compute("Frobnicate", [], {})
    with pytest.raises(NumericError, match="window of 3 × 1"):
        max_pool(np.zeros((1, 2, 2, 1), np.int8), kernel_shape=[3, 1])


@given(st.sampled_from([(), (0,), (2, 0, 3)]))
@example(())
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    x, one = np.zeros(shape, np.int8), np.array([2], np.int32)
    attributes = {"qmin": -128, "qmax": 127, "y_type": 3}
    shift = np.array([1], np.int32)
    assert requantize(x, one, shift, **attributes).shape == shape
    assert add(x, x, one, one, shift, **attributes).shape == shape
    assert mul(x, x, one, shift, **attributes).shape == shape


def test_empty_batches() -> None:
    one = np.array([1], np.int32)
    w = np.zeros((4, 3, 3, 2), np.int8)
    images = np.zeros((0, 5, 5, 2), np.uint8)
    layer = [np.zeros(4, np.int32), one, one, np.zeros(1, np.int8)]
    assert conv(images, w, *layer, **RAW).shape == (0, 3, 3, 4)
    assert conv(images, w[:2, :, :, :1], np.zeros(2, np.int32), *layer[1:], group=2, **RAW).shape == (0, 3, 3, 2)
    assert max_pool(images, kernel_shape=[2, 2]).shape == (0, 4, 4, 2)
    assert reduce_mean(images, one, one, axes=[1, 2], **RAW).shape == (0, 1, 1, 2)
    assert gemm(np.zeros((0, 2), np.int8), w[0, 0, :2, :].T @ np.zeros((2, 4), np.int8), *layer, **RAW).shape == (
        0,
        4,
    )
