"""Every finding of the pre-flight check on a small graph that has just that fault, and silence on those without."""

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import onnxq
from onnxq.check.findings import Finding
from onnxq.check.target import check
from onnxq.graph.model import Model, to_proto
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import LimitRule, Profile, builtin_names, load_profile
from support.build import copy_of, floating, qdq
from support.insertion import context, insert, profile_of
from support.prove.nodes import dequantize_of, node_of, nodes_of

CONV = """g (float[1,4,6,6] x) => (float[1,8,6,6] y) <float[8,4,1,1] w, float[8] b>
    { [c] a = Conv(x, w, b) [r] y = Relu(a) }"""
RESIDUAL = """g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w1, float[4] b1, float[4,4,1,1] w2, float[4] b2>
    { [c1] a = Conv(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv(r, w2, b2) [add] s = Add(c, x) [r2] y = Relu(s) }"""
BLOCKS = """g (float[1,4,6,6] x) => (float[1,5] y)
    <float[8,4,1,1] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,8,1,1] w3, float[8] b3, float[5,16] w4,
     float[5] b4>
    { [c1] a = Conv(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv<group=8, pads=[1,1,1,1]>(r, w2, b2)
      [r2] d = Relu(c) [c3] e = Conv(d, w3, b3) [add] s = Add(e, r) [r3] t = Relu(s) [cat] u = Concat<axis=1>(t, d)
      [mp] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(u) [gap] p = GlobalAveragePool(m) [flat] q = Flatten(p)
      [fc] y = Gemm<transB=1>(q, w4, b4) }"""


def quantized(profile: str | Profile, text: str = CONV, opset: int = 13, **settings) -> Model:
    model = qdq.model(text, opset)
    insert(model, context(model, profile, **settings), fuse=True)
    return model


def of(findings: list[Finding], node: str) -> list[Finding]:
    return [f for f in findings if f.node == node]


def only(findings: list[Finding], severity: str, node: str, problem: str) -> Finding:
    """The one finding of this node and severity whose problem holds the text; every text is one line."""
    assert all("\n" not in f.problem + f.fix for f in findings)
    found = [f for f in findings if f.severity == severity and f.node == node and problem in f.problem]
    assert len(found) == 1, [str(f) for f in findings]
    assert found[0].fix
    return found[0]


def problems(findings: list[Finding], *, notes: bool = False) -> list[str]:
    return [str(f) for f in findings if notes or f.severity != "note"]


def constant(model: Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Model:
    """The model with the values of one constant changed."""
    tensor = model.graph.tensors()[name]
    tensor.values = np.asarray(change(np.array(tensor.values)))
    return model


# What onnxq makes for a profile passes the check of that profile


@pytest.mark.parametrize("text", [CONV, RESIDUAL, BLOCKS], ids=["conv", "residual", "blocks"])
@pytest.mark.parametrize("profile", builtin_names())
def test_own_models_pass(profile, text):
    findings = check(copy_of(quantized(profile, text)), profile)
    allowed = (" in float", "runs in float on", "adds in float")
    assert [p for p in problems(findings) if not p.startswith("remark") or not any(a in p for a in allowed)] == []
    if profile in ("onnxruntime-cpu", "onnxq", "qnn", "fbgemm", "snpe", "tvm"):
        assert problems(findings) == []


@pytest.mark.parametrize("bits", [{"activation_bits": 4, "first_last_bits": None}, {"weight_bits": 4}])
def test_own_models_of_fewer_bits_pass(bits):
    assert problems(check(quantized("onnxruntime-cpu", BLOCKS, 21, **bits), "onnxruntime-cpu")) == []


def test_onnxruntimes_quantizer(tmp_path):
    """A u8/s8 per-channel model of quantize_static: fine for onnxruntime, rejected by TensorRT for three reasons."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = qdq.feeds(qdq.model(BLOCKS))

        def get_next(self):
            return self.left.pop(0) if self.left else None

    onnx.save(qdq.proto(BLOCKS), tmp_path / "f.onnx")
    quantize_static(
        tmp_path / "f.onnx",
        tmp_path / "q.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    assert problems(check(tmp_path / "q.onnx", "onnxruntime-cpu")) == []
    tensorrt = check(tmp_path / "q.onnx", "tensorrt")
    only(tensorrt, "reject", "x_QuantizeLinear", "is uint8; tensorrt wants signed")
    only(tensorrt, "reject", "x_QuantizeLinear", "zero point of its activation is not 0")
    only(tensorrt, "reject", "c1", "DequantizeLinear on its bias")
    assert of(tensorrt, "add")[0].severity == "remark"


# The model as a whole


def test_opset():
    profile = profile_of(
        '[graph]\nscheme = 3\n[limits]\nopset_min = 17\nopset_max = 19\n[ops]\nConv = { output = "always" }'
    )
    low = check(quantized("onnxruntime-cpu"), profile)
    assert only(low, "reject", "", "opset 13 is below 17").fix == "onnxq opt -p 'convert-opset{version=17}'"
    assert "opset 13 will be raised to 17" in check(qdq.model(CONV), profile)[-1].problem
    only(check(qdq.model(CONV, 21), profile), "reject", "", "opset 21 is above 19")
    assert not [f for f in check(qdq.model(CONV, 18), profile) if "opset" in f.problem]


def test_qdq_of_onnxruntimes_domain():
    model = quantized("onnxruntime-cpu")
    for node in nodes_of(model, "QuantizeLinear"):
        node.domain = "com.microsoft"
    only(check(model, "snpe"), "reject", "x_QuantizeLinear", "domain com.microsoft")
    assert problems(check(model, "onnxruntime-cpu")) == []


INTEGER = """g (float[2,4] x) => (int32[2,3] y) <uint8[4,3] w>
    { [dyn] q, s, z = DynamicQuantizeLinear(x) [mm] y = MatMulInteger(q, w, z) }"""


def test_operators_with_integers_inside():
    model = qdq.model(INTEGER, w=np.ones((4, 3), np.uint8))
    for node in ("dyn", "mm"):
        only(check(model, "tensorrt"), "reject", node, "takes QuantizeLinear/DequantizeLinear only")
        only(check(model, "onnxruntime-cpu"), "remark", node, "takes no part in Q/DQ fusion")


def test_operators_of_other_domains():
    model = qdq.model(CONV)
    node = node_of(model, "r")
    node.op, node.domain = "Blur", "acme"
    model.graph.import_domains = [*(model.graph.import_domains or []), onnx.helper.make_opsetid("acme", 1)]
    found = check(model, "tensorrt")
    only(found, "remark", "r", "domain acme")
    assert len(of(found, "r")) == 1


def test_notes_of_the_profile_never_fail():
    notes = [f for f in check(qdq.model(CONV), "onnxruntime-cpu") if f.severity == "note"]
    assert any("Conv: without Q behind it" in f.problem for f in notes)


# Float models


@pytest.mark.parametrize("profile", builtin_names())
def test_a_plain_float_model_passes(profile):
    model = qdq.model(CONV)
    before = to_proto(model).SerializeToString(deterministic=True)
    assert problems(check(model, profile)) == []
    assert to_proto(model).SerializeToString(deterministic=True) == before


def test_what_a_profile_runs_in_float():
    text = """g (float[1,4,6,6] x) => (float[1,4] y) <float[4,4,1,1] w>
        { [c] a = Conv(x, w) [gap] p = GlobalAveragePool(a) [flat] f = Flatten(p) [soft] y = Softmax(f) }"""
    found = check(qdq.model(text), "acl")
    only(found, "remark", "soft", "Softmax runs in float on acl")
    only(found, "remark", "gap", "GlobalAveragePool runs in float")
    assert of(found, "flat") == []  # moves values
    assert [f.node for f in check(qdq.model(text), "onnxruntime-cpu") if f.severity == "remark"] == ["soft"]


def test_shape_arithmetic_is_nobodys_loss():
    text = """g (float[N,4,6,6] x) => (float[M,K] y) <float[4,4,1,1] w, int64[1] minus = {-1}, int64[1] zero = {0},
        int64 axis = {0}>
        { [c] a = Conv(x, w) [shape] s = Shape(x) [n] n = Gather(s, axis) [u] v = Unsqueeze(n, zero)
          [cat] t = Concat<axis=0>(v, minus) [resh] y = Reshape(a, t) }"""
    assert [f.node for f in check(qdq.model(text), "tensorrt") if f.severity != "note"] == []


def test_activations_that_cannot_be_fused():
    text = """g (float[1,4,6,6] x, float hi) => (float[1,4,6,6] y, float[1,4,6,6] z, float[1,4,6,6] k)
        <float[4,4,1,1] w, float[4,4,1,1] v, float lo = {0.0}>
        { [c] a = Conv(x, w) [r] y = Relu(a) [z] z = Neg(a) [d] b = Conv(x, v) [clip] k = Clip(b, lo, hi) }"""
    found = check(qdq.model(text), "tensorrt")
    only(found, "remark", "r", "Relu is not fused into c, whose output others read too")
    only(found, "remark", "clip", "bounds are computed at run time")


BATCHNORM = """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z)
    <float[4,4,1,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var = {1.0, 1.0, 2.0, 1.0}>
    { [c] a = Conv(x, w) [bn] y = BatchNormalization(a, gamma, beta, mean, var) [neg] z = Neg(a) }"""


def test_batchnorm_that_cannot_be_folded():
    found = check(qdq.model(BATCHNORM, 15), "tensorrt")
    assert "none without changing the network" in only(found, "remark", "bn", "not folded").fix


def test_weights_computed_at_run_time():
    text = """g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { [c] y = Conv(x, w) }"""
    only(check(qdq.model(text), "tensorrt"), "remark", "c", "its weight is computed at run time")


def test_products_of_two_activations():
    text = "g (float[2,4] x, float[4,3] v) => (float[2,3] y) { [m] y = MatMul(x, v) }"
    only(check(qdq.model(text), "fbgemm"), "remark", "m", "products of two activations")
    assert problems(check(qdq.model(text), "tensorrt")) == []


def test_broken_weights_are_rejected():
    model = qdq.model(CONV, w=np.full((8, 4, 1, 1), np.nan, np.float32))
    only(check(model, "tensorrt"), "reject", "c", "NaN or infinity")


def test_half_precision():
    text = CONV.replace("float", "float16")
    found = check(qdq.model(text, w=np.ones((8, 4, 1, 1), np.float16), b=np.ones(8, np.float16)), "tensorrt")
    only(found, "remark", "", "input x is float16")
    only(found, "remark", "", "weights are float16")


def test_channels_that_one_scale_starves():
    weight = np.ones((8, 4, 1, 1), np.float32)
    weight[3:5] = 0.01
    model = qdq.model(CONV, w=weight)
    only(check(model, "tvm"), "remark", "c", "2 of its 8 output channels get fewer than 8 codes")
    assert problems(check(model, "onnxruntime-cpu")) == []


def test_sums_beyond_int32():
    text = "g (float[1,70000] x) => (float[1,2] y) <float[70000,2] w> { [m] y = MatMul(x, w) }"
    only(check(qdq.model(text), "onnxq"), "reject", "m", "sums of 70000 products")
    only(check(qdq.model(text), "onnxruntime-cpu"), "remark", "m", "sums of 70000 products")
    assert problems(check(qdq.model(text.replace("70000", "60000")), "onnxq")) == []


def test_control_flow():
    text = """g (float[1,4,6,6] x, bool k) => (float[1,4,6,6] y) <float[4,4,1,1] w>
        { [if] y = If (k) <then_branch = yes () => (float[1,4,6,6] p) { [inner] p = Conv(x, w) },
                           else_branch = no () => (float[1,4,6,6] n) { n = Relu(x) }> }"""
    assert (
        "move the layer out" in only(check(qdq.model(text), "tensorrt"), "remark", "inner", "inside the body of If").fix
    )


def test_exclusions_are_named():
    found = check(qdq.model(CONV), "tensorrt", QuantSettings(exclude=("c",)))
    only(found, "remark", "c", "left in float by the user")


def test_a_model_that_cannot_be_prepared():
    future = dataclasses.replace(load_profile("tensorrt"), limits=LimitRule(opset_min=99))
    only(check(qdq.model(CONV), future), "reject", "", "it cannot be prepared")


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


# T2: sums


def test_sums_by_graph_scheme():
    all_inputs, shortcut, none = (quantized(p, RESIDUAL) for p in ("onnxruntime-cpu", "openvino", "acl"))
    only(check(all_inputs, "openvino"), "remark", "add", "both inputs are quantized")
    only(check(all_inputs, "acl"), "remark", "add", "adds in float, but 2 of its inputs went through Q/DQ")
    only(check(shortcut, "onnxruntime-cpu"), "remark", "add", "1 of its inputs are not quantized")
    only(check(none, "openvino"), "remark", "add", "neither input is quantized")
    assert of(check(shortcut, "openvino"), "add") == []
    assert of(check(all_inputs, "onnxruntime-cpu"), "add") == []


def test_a_sum_of_a_tensor_with_itself_has_no_shortcut():
    text = "g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w> { [c] a = Conv(x, w) [add] y = Add(a, a) }"
    assert problems(check(quantized("openvino", text), "openvino")) == []


# T4: one scale where the profile ties

CONCAT = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] u, float[4,4,1,1] v, float[4,8,1,1] w>
    { [a] a = Conv(x, u) [b] b = Conv(x, v) [cat] c = Concat<axis=1>(a, b) [d] y = Conv(c, w) }"""


def test_concats():
    shared, own, none = (quantized(p, CONCAT) for p in ("openvino", "onnxruntime-cpu", "tensorrt"))
    only(check(own, "openvino"), "remark", "cat", "the inputs and the output of Concat differ in scale")
    only(check(own, "tensorrt"), "remark", "cat", "Q/DQ on both sides")
    only(check(none, "openvino"), "remark", "cat", "not all of its inputs are quantized")
    assert of(check(shared, "openvino"), "cat") == []
    assert of(check(shared, "onnxruntime-cpu"), "cat") == []


def test_passthrough_with_two_scales():
    text = """g (float[1,4,6,6] x) => (float[1,4,3,3] y) <float[4,4,1,1] w>
        { [mp] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) [c] y = Conv(m, w) }"""
    model = quantized("snpe", text)
    assert of(check(model, "snpe"), "mp") == []
    for name in ("m_QuantizeLinear", "m_DequantizeLinear"):
        node_of(model, name).inputs[1] = gs.Constant(f"{name}_s", np.array(3.0, np.float32))
    only(check(model, "snpe"), "remark", "mp", "a different scale from its input")


# N12: fused activations


def test_qdq_between_a_layer_and_its_activation():
    text = """g (float[1,4,6,6] x) => (float[1,8,6,6] y) <float[8,4,1,1] w, float s = {0.1}, int8 z = {0}>
        { [c] a = Conv(x, w) [q] q = QuantizeLinear(a, s, z) [dq] d = DequantizeLinear(q, s, z) [r] y = Relu(d) }"""
    only(check(qdq.model(text), "tensorrt"), "remark", "c", "Q/DQ stands between it and Relu r")


# T1 and T3: what stays in float


def test_layers_half_quantized():
    full = quantized("onnxruntime-cpu", RESIDUAL)
    found = check(quantized("onnxruntime-cpu", RESIDUAL, exclude=("c2",)), "onnxruntime-cpu")
    only(found, "remark", "c2", "runs in float: its input is quantized, its weight is not")
    assert of(check(full, "onnxruntime-cpu"), "c2") == []
    node = node_of(full, "c2")
    node.inputs[0] = dequantize_of(full, "c2", 0).inputs[0].inputs[0].inputs[0]
    only(check(full, "onnxruntime-cpu"), "remark", "c2", "its weight is quantized, its input is not")
    node.inputs[1] = gs.Constant("plain", np.ones((4, 4, 1, 1), np.float32))
    only(check(full, "onnxruntime-cpu"), "remark", "c2", "neither its input nor its weight is quantized")


def test_operators_that_the_target_runs_in_float():
    profile = profile_of(
        "[graph]\nscheme = 3\n[ops]\nGemm = {}\n[weights]\nsymmetric = false\n[activations]\nsymmetric = false"
    )
    only(check(quantized("fbgemm"), profile), "remark", "c", "runs Conv in float: quantizing it only costs accuracy")


def test_dynamic_products():
    text = "g (float[2,4] x, float[4,3] v) => (float[2,3] y) { [m] y = MatMul(x, v) }"
    both = quantized("tensorrt", text)
    assert problems(check(both, "tensorrt")) == []
    only(check(both, "fbgemm"), "remark", "m", "MatMul of two activations runs in float")
    node_of(both, "m").inputs[0] = both.graph.inputs[0]
    only(check(both, "tensorrt"), "remark", "m", "1 of its inputs are not quantized")


def test_outputs_that_must_be_quantized():
    found = check(quantized("openvino", CONV), "onnxruntime-cpu")
    only(found, "remark", "c", "no QuantizeLinear after it")


def test_pooling_of_a_float_tensor():
    text = """g (float[1,4,6,6] x) => (float[1,4,1,1] y) <float[4,4,1,1] w, float s = {0.1}, uint8 z = {0}>
        { [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z) [c] a = Conv(d, w)
          [gap] y = GlobalAveragePool(a) }"""
    only(check(qdq.model(text), "openvino"), "remark", "gap", "its input is not quantized")


def test_constant_operands():
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float k = {2.0}>
        { [c] a = Conv(x, w) [mul] m = Mul(a, k) [s] y = Sigmoid(m) }"""
    model = quantized("fbgemm", text)
    only(check(model, "fbgemm"), "remark", "mul", "one operand is a constant")
    only(check(model, "fbgemm"), "remark", "s", "Sigmoid runs in float on fbgemm")
    assert problems(check(quantized("qnn", text), "qnn")) == []


def test_findings_print_on_one_line():
    finding = check(quantized("onnxruntime-cpu"), "tensorrt")[0]
    assert str(finding).startswith("reject: ")
    assert "(fix: onnxq quantize --requantize --profile tensorrt)" in str(finding)
    assert set(finding.to_dict()) == {"severity", "node", "problem", "fix"}


def test_rejections_come_first():
    order = [f.severity for f in check(quantized("snpe", BLOCKS), "tensorrt")]
    assert order == sorted(order, key=["reject", "remark", "note"].index)


MASKED = """g (float[2,4,8] q0, float[2,8,4] k, float[2,4,8] v, int64[2,1,4] mask) => (float[2,4,8] y)
<float[8,8] wq, float[8,8] wo, float[8] gain, float two = {2}, float eps = {0.00001}, float one = {1},
 float deep = {-10000}>
{ [fq] q = MatMul(q0, wq) [qk] s0 = MatMul(q, k)
  [ones] o = Cast<to=1>(mask) [zeros] z = Sub(one, o) [deep] m = Mul(z, deep)
  [masked] s1 = Add(s0, m) [soft] p = Softmax(s1) [pv] h = MatMul(p, v)
  [m] mean = ReduceMean<axes=[-1]>(h) [d] d = Sub(h, mean) [sq] q2 = Pow(d, two) [var] w = ReduceMean<axes=[-1]>(q2)
  [e] e = Add(w, eps) [s] s = Sqrt(e) [n] n = Div(d, s) [norm] g = Mul(n, gain)
  [out] y = MatMul(g, wo) }"""


@pytest.mark.parametrize("profile", builtin_names())
def test_of_attention_nothing_is_said_that_could_be_mended(profile: str) -> None:
    model = floating.proto(MASKED, 13)
    rng = np.random.default_rng(0)
    feeds = [
        {n: rng.normal(size=(2, 8, 4) if n == "k" else (2, 4, 8)).astype(np.float32) for n in ("q0", "k", "v")}
        | {"mask": rng.integers(0, 2, (2, 1, 4))}
        for _ in range(2)
    ]
    made = onnxq.quantize(model, feeds, profile=profile, calibration="max", qdq=True).model
    found = check(onnxq.load(made), load_profile(profile))
    assert not [f for f in found if "--requantize" in f.fix], found
    assert not {f.node for f in found} & {"zeros", "deep", "m", "d", "sq", "var", "e", "s", "n"}


def test_scales_that_cover_a_mask() -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> g (float[2,4] x, float[2,4] m) => (float[2,4] y)
    <float s = {40.0}, uint8 z = {255}> { [add] a = Add(x, m) [q] b = QuantizeLinear(a, s, z)
      c = DequantizeLinear(b, s, z) [soft] y = Softmax(c) }"""
    found = {f.node: f.problem for f in check(onnxq.load(onnx.parser.parse_model(text)), load_profile("tensorrt"))}
    assert "covers an attention mask" in found["q"]
    assert "adds" not in found.get("add", "")


# What stands against what would be planned for the model without its Q/DQ

GELU = """g (float[2,8] x) => (float[2,8] y) <float root = {1.414}, float one = {1}, float[8,8] w, float[8,8] v>
    { [fc] a = MatMul(x, w) [d] d = Div(a, root) [erf] e = Erf(d) [p] p = Add(e, one) [t] t = Mul(a, p)
      [out] y = MatMul(t, v) }"""


def test_qdq_inside_what_is_one_operator() -> None:
    found = check(quantized("onnxruntime-cpu", GELU), "onnxq")
    only(found, "remark", "t", "Q/DQ stands inside Gelu in 4 nodes, which onnxq computes as one operator")
    assert problems(check(quantized("onnxq", GELU), "onnxq")) == []


def test_biases_of_matmuls_are_part_of_the_layer() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) <float[4,4] w, float[4] b> { [m] a = MatMul(x, w) [add] y = Add(a, b) }"
    assert problems(check(quantized("onnxq", text), "onnxq")) == []


def test_operators_at_the_end_of_a_model() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) <float[4,4] w> { [m] a = MatMul(x, w) [soft] y = Softmax(a) }"
    finding = only(check(quantized("onnxq", text), "onnxq"), "remark", "soft", "no layer downstream")
    assert finding.fix == "none with this profile"


def test_masks_and_positions_with_qdq() -> None:
    text = """g (float[2,4] x, int64[2,4] mask) => (float[2,4] y) <float[4,4] w, float s = {0.1}, int8 z = {0}>
        { [m] a = MatMul(x, w) [cast] f = Cast<to=1>(mask) [q] q = QuantizeLinear(f, s, z)
          [dq] d = DequantizeLinear(q, s, z) [neg] n = Neg(d) [add] y = Mul(a, n) }"""
    only(
        check(qdq.model(text), "qnn"), "remark", "neg", "it computes a mask or positions from integers: Q/DQ only costs"
    )


def test_integers_made_elsewhere_are_inputs() -> None:
    text = """g (int8[1,4,6,6] x) => (float[1,8,6,6] y) <int8[8,4,1,1] w, float s = {0.1}, int8 z = {0}>
        { [dq] d = DequantizeLinear(x, s, z) [wd] v = DequantizeLinear(w, s, z) [c] y = Conv(d, v) }"""
    model = qdq.model(text, w=np.ones((8, 4, 1, 1), np.int8))
    assert [f.problem for f in of(check(model, "openvino"), "c") if "float" in f.problem] == []


def test_qdq_that_cannot_be_removed() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,8,6,6] y) <int8[8,4,1,1] w, float[3] s = {1, 1, 1}, float sx = {0.1}>
        { [q] q = QuantizeLinear(x, sx) [dq] d = DequantizeLinear(q, sx) [wd] v = DequantizeLinear<axis=0>(w, s)
          [c] y = Conv(d, v) }"""
    found = check(qdq.model(text, w=np.ones((8, 4, 1, 1), np.int8)), "openvino")
    only(found, "reject", "", "its Q/DQ cannot be removed")


def test_bodies_are_compared_too() -> None:
    text = """g (float[1,4,6,6] x, bool k) => (float[1,4,6,6] y) <float[4,4,1,1] w, float s = {0.1}, int8 z = {0}>
        { [dead] u = If (k) <then_branch = a () => (float[1,4,6,6] e) { e = Relu(x) },
                             else_branch = b () => (float[1,4,6,6] f) { f = Neg(x) }>
          [if] y = If (k) <then_branch = yes () => (float[1,4,6,6] p)
                             { [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z) [in] p = Conv(d, w) },
                           else_branch = no () => (float[1,4,6,6] n) { n = Relu(x) }> }"""
    only(check(qdq.model(text), "tensorrt"), "remark", "in", "its input is quantized, its weight is not")
