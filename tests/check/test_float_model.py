"""Every finding on a float model, on a small graph that has just that fault, and silence on those without."""

import dataclasses

import numpy as np
import onnx.parser
import pytest

from onnxq.check.target import check
from onnxq.graph.model import load, to_proto
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import LimitRule, builtin_names, load_profile
from support.build import qdq
from support.findings import CONV, of, only, problems


@pytest.mark.parametrize("profile", builtin_names())
def test_a_plain_float_model_passes(profile):
    model = qdq.model(CONV)
    before = to_proto(model).SerializeToString(deterministic=True)
    assert problems(check(model, profile)) == []
    assert to_proto(model).SerializeToString(deterministic=True) == before


def test_what_a_profile_runs_in_float():
    text = """g (float[1,4,6,6] x) => (float[1,4] y) <float[4,4,1,1] w>
        { [c] a = Conv(x, w) [gap] p = GlobalAveragePool(a) [flat] f = Flatten(p) [soft] y = Softmax(f) }"""
    found = check(qdq.model(text), "ascend")
    only(found, "remark", "soft", "Softmax runs in float on ascend")
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


def test_sums_of_a_weight_on_the_left_of_a_product():
    """Its output channels are rows; the other operand may have more axes."""
    text = "g (float[2,3,{k},5] x) => (float[2,3,4,5] y) <float[4,{k}] w> {{ [m] y = MatMul(w, x) }}"
    assert of(check(qdq.model(text.format(k=6)), "onnxruntime-cpu"), "m") == []
    found = check(qdq.model(text.format(k=70_000)), "onnxruntime-cpu")
    assert any("sums of 70000 products may exceed" in f.problem for f in of(found, "m"))


def test_sequences_whose_elements_have_no_known_type():
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 24]>
        g (float[3,6] x) => (seq(float[]) s) { [split] s = SplitToSequence<axis=1>(x) }""")
    proto.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    for profile in builtin_names():
        assert of(check(load(proto), profile), "split") != []
