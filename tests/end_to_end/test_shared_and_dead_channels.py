"""Channels of zeros, or nearly, beside a bias, in layers that share weights: their output is the bias, everywhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.profiles.schema import load_profile

PROFILES = (
    "acl",
    "fbgemm",
    "onnxq",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "openvino",
    "qnn",
    "snpe",
    "tensorrt",
    "tvm",
)
BIAS = np.array([5, -4.5, 300, 2], np.float32)
DEAD = 2  # the channel

# Two or three layers that share, inputs that differ in size, then Relu (in front of a QuantizeLinear onnxruntime makes
# integers of float biases). Shapes: weight, input.
SHARED = {
    "Conv": ("Conv({x}, W, b)", (4, 4, 1, 1), "1,4,5,5", 0),
    "Conv 1-D": ("Conv<pads=[1,1]>({x}, W, b)", (4, 4, 3), "2,4,9", 0),
    "ConvTranspose": ("ConvTranspose({x}, W, b)", (4, 4, 2, 2), "1,4,5,5", 1),
    "Gemm": ("Gemm({x}, W, b)", (4, 4), "6,4", 1),
    "Gemm transB": ("Gemm<transB=1>({x}, W, b)", (4, 4), "6,4", 0),
}
ALONE = {**SHARED, "grouped": ("ConvTranspose<group=2>({x}, W, b)", (4, 2, 2, 2), "1,4,5,5", 1)}


def parsed(text: str, **values: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in values.items())
    return model


def weight(shape: tuple[int, ...], axis: int, dead: float) -> np.ndarray:
    w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.moveaxis(w, axis, 0)[DEAD % shape[axis]] *= dead
    return w


def outputs(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], level: str) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def prove(model: onnx.ModelProto, profile: str, channels: int = 1) -> onnx.ModelProto:
    """Every channel of every output is within what 8 bits of that output can say, optimized or not."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(2)
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(6)]
    product = onnxq.quantize(model, feeds, profile=profile, qdq=True, threads=1).model
    expected = outputs(model, feeds[0], "ORT_DISABLE_ALL")
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        for want, got in zip(expected, outputs(product, feeds[0], level), strict=True):
            dead = np.moveaxis(want, channels, 0)[DEAD], np.moveaxis(got, channels, 0)[DEAD]
            span = 2 * np.abs(want).max() / 127
            assert np.abs(dead[0] - dead[1]).max() <= span, f"{level}: {dead[1].ravel()[0]} for {dead[0].ravel()[0]}"
    return product


@pytest.mark.shared_weight
@pytest.mark.parametrize("dead", [0.0, 1e-8])
@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("profile", PROFILES)
def test_layers_with_one_weight(profile: str, kind: str, dead: float) -> None:
    call, shape, data, axis = SHARED[kind]
    text = f"""g (float[{data}] x) => (a, c, d) <float big = {{1000}}, float small = {{0.01}}>
        {{ a = {call.format(x="x")} xs = Mul(x, big) c = {call.format(x="xs")}
           xt = Mul(x, small) d = {call.format(x="xt")} }}"""
    product = prove(parsed(text, W=weight(shape, axis, dead), b=BIAS), profile)
    weights = [i for i in product.graph.initializer if i.name.startswith("W_quantized")]
    one_scale = load_profile(profile).weights.granularity == "per-tensor"
    assert len(weights) == 1 or one_scale, "one set of scales serves them all"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.shared_weight
def test_a_bias_of_its_own_each(profile: str, order: int) -> None:
    biases = [BIAS, np.array([1, 0, -0.001, 2], np.float32)][::order]
    text = """g (float[1,4,5,5] x) => (a, c) <float big = {1000}>
        { a = Conv(x, W, b) xs = Mul(x, big) c = Conv(xs, W, b2) }"""
    prove(parsed(text, W=weight((4, 4, 1, 1), 0, 0.0), b=biases[0], b2=biases[1]), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_bias_with_a_weight_each(profile: str) -> None:
    text = """g (float[1,4,5,5] x) => (a, c) <float big = {1000}>
        { a = Conv(x, W, b) xs = Mul(x, big) c = Conv(xs, W2, b) }"""
    prove(parsed(text, W=weight((4, 4, 1, 1), 0, 0.0), W2=weight((4, 4, 3, 3), 0, 1e-9), b=BIAS), profile)


@pytest.mark.parametrize("dead", [0.0, 1e-6, 1e-9, 1e-30])
@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_layer_alone(profile: str, kind: str, dead: float) -> None:
    call, shape, data, axis = ALONE[kind]
    text = f"g (float[{data}] x) => (r) {{ a = {call.format(x='x')} r = Relu(a) }}"
    prove(parsed(text, W=weight(shape, axis, dead), b=BIAS), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_all_weights_are_tiny_and_one_layer_has_no_bias(profile: str) -> None:
    text = "g (float[1,4,5,5] x) => (y, z) { a = Conv(x, W, b) r = Relu(a) y = Conv(r, V) q = Conv(x, W2) z = Relu(q) }"
    tiny = weight((4, 4, 1, 1), 0, 1.0) * np.float32(1e-9)
    model = parsed(text, W=tiny, W2=tiny, V=weight((4, 4, 1, 1), 0, 1.0), b=BIAS)
    prove(model, profile)
