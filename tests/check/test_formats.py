"""Findings on the numbers of a QDQ model: scales, types, signs and zero points, weights and biases."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import onnxq
from onnxq.check.target import check
from onnxq.graph.model import Model, to_proto
from onnxq.profiles.schema import load_profile
from support.build import qdq
from support.findings import constant, of, only, problems, quantized
from support.prove.nodes import dequantize_of, node_of
from support.runs import run

# F1: scales


@pytest.mark.parametrize("value", [0.0, -0.5, np.inf, np.nan])
def test_scales_must_be_positive_and_finite(value):
    model = constant(quantized("tensorrt"), "x_scale", lambda s: np.float32(value) + 0 * s)
    only(check(model, "tensorrt"), "reject", "x_QuantizeLinear", "not a finite number above 0")


def test_scales_of_weights_too():
    model = constant(quantized("tensorrt"), "w_scale", lambda s: np.where(np.arange(8) == 3, np.float32(0), s))
    only(check(model, "tensorrt"), "reject", "w_DequantizeLinear", "not a finite number above 0")


def test_scales_must_be_constant():
    text = """g (float[1,4,6,6] x, float s) => (float[1,8,6,6] y) <float[8,4,1,1] w, int8 z = {0}>
        { [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z) [c] y = Conv(d, w) }"""
    only(check(qdq.model(text), "tensorrt"), "reject", "q", "computed at run time")


def test_quantize_and_dequantize_must_agree():
    model = quantized("tensorrt")
    node = node_of(model, "x_DequantizeLinear")
    node.inputs[1] = gs.Constant("other", np.array(2.0, np.float32))
    only(check(model, "tensorrt"), "reject", "x_DequantizeLinear", "not that of x_QuantizeLinear")


def test_activations_have_one_scale():
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4] s = {1.0, 2.0, 3.0, 4.0}, int8[4] z = {0, 0, 0, 0}>
        { [q] q = QuantizeLinear<axis=1>(x, s, z) [dq] y = DequantizeLinear<axis=1>(q, s, z) }"""
    only(check(qdq.model(text), "onnxruntime-cpu"), "reject", "q", "a scale for each channel")


def test_powers_of_two():
    found = check(quantized("snpe"), "tvm")
    only(found, "reject", "x_QuantizeLinear", "a scale of its activation is not a power of two")
    only(found, "reject", "c", "a scale of its weight is not a power of two")


# F2: types, signs, zero points


def test_signs_and_zero_points():
    model = quantized("snpe")  # everything unsigned and affine
    strict, lenient = check(model, "tensorrt"), check(model, "openvino")
    for node, what in (("x_QuantizeLinear", "activation"), ("c", "weight")):
        only(strict, "reject", node, f"its {what} is uint8; tensorrt wants signed")
        only(strict, "reject", node, f"zero point of its {what} is not 0; tensorrt takes no other")
    only(lenient, "remark", "c", "its weight is uint8; openvino wants signed")
    only(lenient, "remark", "c", "zero point of its weight is not 0; openvino is symmetric")
    assert of(lenient, "x_QuantizeLinear") == []
    only(check(quantized("tensorrt"), "openvino"), "remark", "x_QuantizeLinear", "int8; openvino wants unsigned")


def test_widths():
    int4 = quantized("onnxruntime-cpu", opset=21, weight_bits=4, first_last_bits=None)
    only(check(int4, "tensorrt"), "reject", "c", "takes no 4-bit weights (int4)")
    assert problems(check(int4, "qnn")) == []
    narrow = quantized("onnxruntime-cpu", activation_bits=5, first_last_bits=None)
    only(check(narrow, "fbgemm"), "reject", "x_QuantizeLinear", "takes no 5-bit activations")


TYPED = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float s = {{0.1}}, {kind} z = {{0}}>
    {{ [q] q = QuantizeLinear(x, s, z) [dq] y = DequantizeLinear(q, s, z) }}"""


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("uint16", "takes no 16-bit activations (uint16)"),
        ("int16", "takes no 16-bit activations (int16)"),
        ("uint4", "stored as uint4: onnxruntime fails to load it or drops a Relu"),
        ("int4", "stored as int4"),
        ("float8e4m3fn", "is float8_e4m3fn; onnxruntime-cpu takes integers"),
    ],
)
def test_types_of_activations(kind, problem):
    model = qdq.model(TYPED.format(kind=kind), 21)
    only(check(model, "onnxruntime-cpu"), "reject", "q", problem)


# F3: weights

LAYER = """g (float[1,4,6,6] x) => (float[1,8,6,6] y)
    <float s = {{0.1}}, uint8 z = {{0}}, {weight}>
    {{ [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z) {nodes} [c] y = Conv(d, v) }}"""


def layer(weight: str, nodes: str, opset: int = 13, **values: np.ndarray) -> Model:
    return qdq.model(LAYER.format(weight=weight, nodes=nodes), opset, **values)


def test_weights_stored_as_float():
    model = layer(
        "float[8,4,1,1] w, float[8] ws, int8[8] wz",
        "[wq] wi = QuantizeLinear<axis=0>(w, ws, wz) [wd] v = DequantizeLinear<axis=0>(wi, ws, wz)",
        ws=np.full(8, 0.01, np.float32),
        wz=np.zeros(8, np.int8),
    )
    only(check(model, "snpe"), "remark", "c", "stored in float32 and quantized at run time")
    only(check(model, "snpe"), "reject", "c", "a scale for each channel; snpe takes one for the tensor")


CODES = {"w": np.arange(32).astype(np.int8).reshape(8, 4, 1, 1)}


def test_granularity():
    model = layer("int8[8,4,1,1] w, float ws = {0.1}", "[wd] v = DequantizeLinear(w, ws)", **CODES)
    only(check(model, "openvino"), "remark", "c", "one scale for its whole weight")
    assert of(check(model, "tvm"), "c") != []
    assert not [f for f in check(model, "tvm") if "scale for" in f.problem]


def test_axis_of_the_channels():
    wrong = layer(
        "int8[8,4,1,1] w, float[4] ws",
        "[wd] v = DequantizeLinear<axis=1>(w, ws)",
        ws=np.full(4, 0.1, np.float32),
        **CODES,
    )
    only(check(wrong, "openvino"), "reject", "c", "along axis 1, but the output channels of Conv lie on axis 0")
    negative = layer(
        "int8[8,4,1,1] w, float[8] ws",
        "[wd] v = DequantizeLinear<axis=-4>(w, ws)",
        ws=np.full(8, 0.1, np.float32),
        **CODES,
    )
    assert of(check(negative, "openvino"), "c") == []


@pytest.mark.parametrize(("axis", "right"), [(0, False), (1, True)])
def test_axis_of_convtranspose(axis, right):
    text = f"""g (float[1,4,6,6] x) => (float[1,4,6,6] y)
        <float s = {{0.1}}, uint8 z = {{0}}, int8[4,4,1,1] w, float[4] ws = {{0.1, 0.1, 0.1, 0.2}}>
        {{ [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z)
           [wd] v = DequantizeLinear<axis={axis}>(w, ws) [c] y = ConvTranspose(d, v) }}"""
    found = check(qdq.model(text, w=np.ones((4, 4, 1, 1), np.int8)), "openvino")
    assert [f.severity for f in of(found, "c")] == ([] if right else ["reject"])


def test_blocks():
    model = layer(
        "int8[8,4,1,1] w, float[8,2,1,1] ws",
        "[wd] v = DequantizeLinear<axis=1, block_size=2>(w, ws)",
        opset=21,
        ws=np.full((8, 2, 1, 1), 0.1, np.float32),
        **CODES,
    )
    only(check(model, "openvino"), "reject", "c", "a scale for every 2 elements")


# F4: biases


def test_float_biases():
    only(check(quantized("openvino"), "fbgemm"), "remark", "c", "its bias is float32")
    assert problems(check(quantized("openvino"), "openvino")) == []


def test_quantized_biases_where_they_are_rejected():
    only(check(quantized("onnxruntime-cpu"), "tensorrt"), "reject", "c", "DequantizeLinear on its bias")


def test_bias_scale_must_be_the_product():
    def other(s: np.ndarray) -> np.ndarray:
        return s * np.where(np.arange(8) == 2, np.float32(1.01), np.float32(1))

    found = check(constant(quantized("onnxruntime-cpu"), "b_scale", other), "onnxruntime-cpu")
    only(found, "reject", "c", "not scale_x · scale_w")
    near = constant(quantized("onnxruntime-cpu"), "b_scale", lambda s: np.nextafter(s, np.float32(1)))
    assert problems(check(near, "onnxruntime-cpu")) == []


def test_bias_type_and_zero_point():
    model = quantized("onnxruntime-cpu")
    node = dequantize_of(model, "c", 2)
    node.inputs.append(gs.Constant("b_zero", np.ones(8, np.int32)))
    only(check(model, "onnxruntime-cpu"), "reject", "c", "zero point that is not 0")
    node.inputs[0] = gs.Constant("b8", np.ones(8, np.int8))
    node.inputs[2] = gs.Constant("b8_zero", np.zeros(8, np.int8))
    only(check(model, "onnxruntime-cpu"), "remark", "c", "its bias is int8, not int32")


def test_bias_of_a_grouped_convtranspose():
    text = """g (float[1,4,6,6] x) => (float[1,6,6,6] y) <float[4,3,1,1] w, float[6] b>
        { [c] y = ConvTranspose<group=2>(x, w, b) }"""
    assert problems(check(quantized("snpe", text), "snpe")) == []
    assert problems(check(quantized("fbgemm", text), "fbgemm")) == []


# F5: masks


def test_scales_that_cover_a_mask() -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> g (float[2,4] x, float[2,4] m) => (float[2,4] y)
    <float s = {40.0}, uint8 z = {255}> { [add] a = Add(x, m) [q] b = QuantizeLinear(a, s, z)
      c = DequantizeLinear(b, s, z) [soft] y = Softmax(c) }"""
    found = {f.node: f.problem for f in check(onnxq.load(onnx.parser.parse_model(text)), load_profile("tensorrt"))}
    assert "covers an attention mask" in found["q"]
    assert "adds" not in found.get("add", "")


# F6: what onnxruntime makes of float biases

FLOAT_BIAS = """g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <int8[4,4,1,1] w, float[4] ws, float[4] b, uint8 zero = {{0}},
     float xs = {{0.01}}, uint8 xz = {{128}}, float ys = {{2.5}}>
    {{ q = QuantizeLinear(x, xs, xz) d = DequantizeLinear(q, xs, xz) v = DequantizeLinear<axis={axis}>(w, ws)
       [c] c = {op}(d, v, b) {tail} }}"""
TO_Q = "[r] r = Relu(c) k = QuantizeLinear(r, ys, zero) y = DequantizeLinear(k, ys, zero)"


def float_bias(scale: float, bias: float, op: str = "Conv", tail: str = TO_Q) -> Model:
    return qdq.model(
        FLOAT_BIAS.format(op=op, axis=int(op == "ConvTranspose"), tail=tail),
        w=np.ones((4, 4, 1, 1), np.int8),
        ws=np.array([0.01, 0.01, scale, 0.01], np.float32),
        b=np.array([1, 2, bias, 0], np.float32),
    )


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("scale", "bias"), [(1e-10, 300), (1e-10, -300), (1e-7, 1e7), (1e-38, 1e-3)])
def test_float_biases_that_overflow(op: str, scale: float, bias: float):
    model = float_bias(scale, bias, op)
    found = only(check(model, "onnxruntime-cuda"), "reject", "c", "of channel 2 is")
    assert "int32 when it loads the model, and it overflows" in found.problem and "--requantize" in found.fix
    only(check(model, "tensorrt"), "remark", "c", "and it overflows")


def test_float_biases_that_overflow_are_wrong_in_onnxruntime():
    # What the finding says, held against the runtime.
    x = {"x": np.zeros((1, 4, 6, 6), np.float32)}
    model = float_bias(1e-10, 300)
    assert run(model, x)["y"][0, 2].max() == 300
    assert run(model, x, optimize=True)["y"][0, 2].max() < 10


def test_float_biases_that_a_coarse_scale_loses():
    only(check(float_bias(1e4, 40.0), "onnxruntime-cuda"), "reject", "c", "is no multiple of scale_x · scale_w = 1e+02")
    assert "overflows" not in str(check(float_bias(1e4, 40.0), "onnxruntime-cuda"))


@pytest.mark.parametrize(
    ("scale", "bias", "tail"),
    [
        (0.01, 300, TO_Q),
        (1e-6, 20, TO_Q),
        (1e4, 1.0, TO_Q),  # lost, but less than a step of the result
        (1e-10, 300, "[r] y = Relu(c)"),  # the layer stays float in onnxruntime
        (1e-10, 300, "[r] y = Sigmoid(c) k = QuantizeLinear(y, ys, zero)"),
        (1e-10, np.inf, TO_Q),
    ],
)
def test_float_biases_that_are_fine(scale: float, bias: float, tail: str):
    assert not [
        f for f in check(float_bias(scale, bias, tail=tail), "onnxruntime-cuda") if "makes it int32" in f.problem
    ]


@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime-cuda", "openvino"])
def test_requantizing_mends_a_float_bias(profile: str):
    model = onnxq.quantize(
        to_proto(float_bias(1e-10, 300)), [{"x": np.ones((1, 4, 6, 6), np.float32)}], profile=profile, requantize=True
    )
    assert "overflows" not in str(check(model.model, profile))
