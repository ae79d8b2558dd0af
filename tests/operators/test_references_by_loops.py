"""The NumPy operators of com.onnxq against plain loops."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.operators import OPERATORS, compute
from support.loops import at, codes, draw_window, finish, kinds, placed, result, seeds, vectors, window

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
