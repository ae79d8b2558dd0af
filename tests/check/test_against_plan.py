"""Findings where Q/DQ stands elsewhere than would be planned for the model without its Q/DQ."""

import dataclasses

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import onnxq
from onnxq.check.target import check
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import floating, qdq
from support.findings import CONV, RESIDUAL, of, only, problems, quantized
from support.insertion import profile_of
from support.prove.nodes import dequantize_of, node_of

# T2: sums


def test_sums_by_graph_scheme():
    all_inputs, shortcut, none = (quantized(p, RESIDUAL) for p in ("onnxruntime-cpu", "openvino", "ascend"))
    only(check(all_inputs, "openvino"), "remark", "add", "both inputs are quantized")
    only(check(all_inputs, "ascend"), "remark", "add", "adds in float, but 2 of its inputs went through Q/DQ")
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


MIXED = """g (float[N,4,H,W] x) => (float[N,4,H,W] y) <float[4,4,1,1] w, float[4,4,1,1] v>
    { [c] c = Conv(x, w) [s] s = Sigmoid(c) [m] m = Mul(c, s) [add] a = Add(c, m) [d] y = Conv(a, v) }"""


def test_a_tensor_read_quantized_and_as_it_is():
    # OpenVINO computes that incorrectly with free sizes.
    assert not [f for f in check(quantized("openvino", MIXED), "openvino") if "one of the two" in f.problem]
    target = load_profile("openvino")
    mixed = dataclasses.replace(target, graph=dataclasses.replace(target.graph, all_readers=False))
    only(check(quantized(mixed, MIXED), "openvino"), "remark", "c", "is read quantized, and as it is by")
