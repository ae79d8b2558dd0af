"""Lowered layers whose results are moved or selected from by float operators: onnxruntime loads and runs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxq import lower, quantize
from onnxq.execution import runtime
from support.build import Qdq, floating

MOVERS = {
    "MaxPool": ("m = MaxPool<kernel_shape=[2,2]>(r)", ""),
    "Reshape": ("m = Reshape(r, s)", "int64[2] s = {0, -1}"),
    "Flatten": ("m = Flatten(r)", ""),
    "Transpose": ("m = Transpose<perm=[0,2,3,1]>(r)", ""),
    "Unsqueeze": ("m = Unsqueeze(r, a)", "int64[1] a = {1}"),
    "Squeeze": ("p = Unsqueeze(r, a) n = Neg(p) m = Squeeze(n, a)", "int64[1] a = {1}"),
    "Slice": ("m = Slice(r, b, e, a)", "int64[1] b = {1}, int64[1] e = {4}, int64[1] a = {2}"),
    "Expand": ("m = Expand(r, s)", "int64[5] s = {2, 1, 1, 1, 1}"),
    "DepthToSpace": ("d = SpaceToDepth<blocksize=2>(r) m = DepthToSpace<blocksize=2>(d)", ""),
    "a chain": ("p = MaxPool<kernel_shape=[2,2]>(r) t = Transpose<perm=[0,2,3,1]>(p) m = Flatten(t)", ""),
    "two readers": ("p = MaxPool<kernel_shape=[2,2]>(r) q = Flatten(r) f = Flatten(p) m = Concat<axis=1>(q, f)", ""),
    "the same twice": ("p = Reshape(r, s) q = Reshape(r, s) m = Add(p, q)", "int64[2] s = {0, -1}"),
    "behind a cast": ("n = Cast<to=1>(r) m = Reshape(n, s)", "int64[2] s = {0, -1}"),
    "behind a sum with 0": ("n = Add(r, z) m = Reshape(n, s)", "int64[2] s = {0, -1}, float z = {0}"),
    "behind an expansion to itself": ("n = Expand(r, o) m = Reshape(n, s)", "int64[2] s={0,-1}, int64[4] o={1,1,1,1}"),
}
TARGETS = ["tensorrt", "openvino", "onnxruntime-cpu", "ascend", "onnxq"]


def convolution(mover: str, end: str, x: str = "1,3,6,6", channels: int = 4) -> onnx.ModelProto:
    nodes, constants = MOVERS[mover]
    return floating.proto(
        f"""g (float[{x}] x) => (float[] y) <float[{channels},3,1,1] w{", " if constants else ""}{constants}>
        {{ c = Conv(x, w) r = {end}(c) {nodes} y = Identity(m) }}"""
    )


def optimized_as_plain(
    model: onnx.ModelProto, profile: str, edit: Callable[[onnx.ModelProto], None] | None = None
) -> onnx.ModelProto:
    """The lowered model computes with optimizations, by kernels and by bodies, what the QDQ model does without any."""
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(6)]
    q = quantize(model, feeds, profile=profile, qdq=True, proof="none").model
    if edit is not None:
        edit(q)
    integer = lower(q, proof="none").model
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(q.SerializeToString(), plain).run(None, feeds[0])[0]
    for kernels in (True, False):
        found = runtime.session(integer, kernels=kernels).run(None, feeds[0])[0]
        np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    return integer


@pytest.mark.parametrize("end", ["Relu", "Identity", "Sigmoid"])
@pytest.mark.parametrize("profile", TARGETS)
@pytest.mark.parametrize("mover", MOVERS)
def test_they_load_and_compute_the_same(mover: str, profile: str, end: str) -> None:
    optimized_as_plain(convolution(mover, end), profile)


@pytest.mark.parametrize("profile", ["tensorrt", "ascend"])
@pytest.mark.parametrize("mover", ["MaxPool", "Reshape", "Transpose", "a chain", "two readers"])
def test_without_a_dimension_of_known_size(mover: str, profile: str) -> None:
    integer = optimized_as_plain(convolution(mover, "Relu", "n,3,h,w", channels=1), profile)
    scales = {i.name: i.dims for i in integer.graph.initializer}
    dequantize = [n for n in integer.graph.node if n.op_type == "DequantizeLinear"]
    assert any(not scales[n.input[1]] or list(scales[n.input[1]]) == [1] for n in dequantize)


@pytest.mark.parametrize("shift", [0, 7])
@pytest.mark.parametrize("mover", ["MaxPool", "Reshape", "Slice", "two readers"])
def test_int8_codes_of_a_model_below_opset_21(mover: str, shift: int) -> None:
    def shifted(model: onnx.ModelProto) -> None:
        points = {n.input[2] for n in model.graph.node if n.op_type == "DequantizeLinear" and len(n.input) > 2}
        for tensor in model.graph.initializer:
            if tensor.name in points and tensor.data_type == onnx.TensorProto.INT8 and not tensor.dims:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(shift, np.int8), tensor.name))

    optimized_as_plain(convolution(mover, "Sigmoid"), "tensorrt", shifted)


@pytest.mark.parametrize("last", ["y = Softmax(l)", "y = Flatten(l)"])
def test_nothing_changes_where_nothing_is_moved(last: str) -> None:
    made = Qdq("float[2,4] x", "float[2,3] y").q("x", 0.0117)
    made.weight("w", np.random.default_rng(0).integers(-127, 128, (4, 3)), 0.0131).node(f"l = Gemm(x_d, w_d) {last}")
    integer = lower(made.proto(), proof="none").model
    (end,) = [n for n in integer.graph.node if n.op_type == "DequantizeLinear"]
    assert not any(i.dims for i in integer.graph.initializer if i.name == end.input[1])
