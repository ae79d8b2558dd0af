"""The NumPy operators of com.onnxq against onnxruntime's integer operators, at their limits, and refusals."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.errors import NumericError
from onnxq.operators import OPERATORS, compute
from support.loops import RAW, codes

conv = OPERATORS["Conv"].compute
gemm = OPERATORS["Gemm"].compute
matmul = OPERATORS["MatMul"].compute
mul = OPERATORS["Mul"].compute
requantize = OPERATORS["Requantize"].compute
average_pool = OPERATORS["AveragePool"].compute
max_pool = OPERATORS["MaxPool"].compute
reduce_mean = OPERATORS["ReduceMean"].compute
add = OPERATORS["Add"].compute


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
