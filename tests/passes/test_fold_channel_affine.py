"""fold-channel-affine: scales and shifts by constants go into layers and into one another."""

import numpy as np
import pytest

from onnxq.passes.fold_channel_affine import FoldChannelAffine
from support.prove.passes import prove

PASS = FoldChannelAffine()

LAYERS = {
    "Conv": ("float[1,4,7,7] x) => (float[A,B,C,D] y)", "float[6,4,3,3] w", "Conv(x, w)", "6,1,1"),
    "Conv with bias": (
        "float[1,4,7,7] x) => (float[A,B,C,D] y)",
        "float[6,4,3,3] w, float[6] b",
        "Conv(x, w, b)",
        "1,6,1,1",
    ),
    "ConvTranspose": (
        "float[1,4,7,7] x) => (float[A,B,C,D] y)",
        "float[4,3,3,3] w",
        "ConvTranspose<group = 2>(x, w)",
        "6,1,1",
    ),
    "Gemm": (
        "float[3,4] x) => (float[A,B] y)",
        "float[5,4] w, float[5] b",
        "Gemm<transB = 1, beta = 0.5>(x, w, b)",
        "5",
    ),
}


@pytest.mark.parametrize(
    "steps", ["y = Mul(h, c)", "y = Mul(c, h)", "y = Div(h, c)", "y = Add(c, h)", "y = Sub(h, c)", "y = Sub(c, h)"]
)
@pytest.mark.parametrize("layer", LAYERS)
def test_one_step_after_a_layer(layer, steps):
    signature, declared, call, shape = LAYERS[layer]
    proof = prove(f"g ({signature} <{declared}, float[{shape}] c> {{ h = {call} {steps} }}", PASS)
    assert proof.changed == 1
    assert proof.ops == {layer.split()[0]: 1}


@pytest.mark.parametrize("scalar", ["float c = {-2.5}", "float[1] c = {0.5}", "float[1,1,1] c = {3}"])
def test_one_number_for_all_channels(scalar):
    text = f"g (float[1,4,7,7] x) => (float[A,B,C,D] y) <float[6,4,3,3] w, {scalar}> {{ h = Conv(x, w) y = Mul(h, c) }}"
    assert prove(text, PASS).ops == {"Conv": 1}


def test_the_pattern_of_models_from_caffe2():
    text = """g (float[1,4,7,7] x) => (float[A,B,C,D] y) <float[6,4,3,3] w, float[6,1,1] a, float[6,1,1] b> {
        h = Conv(x, w)
        s = Mul(h, a)
        t = Add(s, b)
        y = Relu(t)
    }"""
    proof = prove(text, PASS)
    assert proof.ops == {"Conv": 1, "Relu": 1}
    assert proof.changed == 2


@pytest.mark.parametrize(
    ("steps", "ops"),
    [
        ("y = Mul(h, c)", {"MatMul": 1}),
        ("y = Add(h, c)", {"MatMul": 1, "Add": 1}),
        ("s = Mul(h, c) y = Add(s, d)", {"MatMul": 1, "Add": 1}),
        ("s = Add(h, c) y = Mul(s, d)", {"MatMul": 1, "Add": 1}),
        ("s = Add(h, c) y = Add(s, d)", {"MatMul": 1, "Add": 1}),
        ("s = Sub(h, c) y = Mul(s, d)", {"MatMul": 1, "Sub": 1, "Mul": 1}),
    ],
)
@pytest.mark.parametrize("batch", ["", "2,"])
def test_after_a_matmul_its_bias_stays(steps, ops, batch):
    signature = f"g (float[{batch}3,4] x) => (float[{batch}3,5] y) <float[4,5] w, float[5] c, float[5] d>"
    assert prove(f"{signature} {{ h = MatMul(x, w) {steps} }}", PASS).ops == ops


def test_rows_of_a_matmul_are_not_its_channels():
    text = "g (float[3,4] x) => (float[3,5] y) <float[4,5] w, float[3,1] c> { h = MatMul(x, w) [m] y = Mul(h, c) }"
    proof = prove(text, PASS)
    assert (proof.changed, proof.reasons) == (0, {"m": "its operand is not per-channel"})


def test_what_varies_over_the_image_stays():
    text = """g (float[1,4,7,7] x) => (float[1,6,5,5] y) <float[6,4,3,3] w, float[6,5,5] c> {
        h = Conv(x, w)
        [m] y = Add(h, c)
    }"""
    proof = prove(text, PASS)
    assert (proof.changed, proof.reasons) == (0, {"m": "its operand is not per-channel"})


def test_what_enlarges_the_tensor_stays():
    text = "g (float[3,4] x) => (float[2,3,5] y) <float[4,5] w, float[2,1,1] c> { h = Gemm(x, w) y = Mul(h, c) }"
    assert prove(text, PASS).changed == 0


def test_a_result_that_others_read():
    text = """g (float[3,4] x) => (float[3,5] y, float[3,5] z) <float[4,5] w, float[5] c> {
        [fc] h = Gemm(x, w)
        [m] y = Mul(h, c)
        [r] z = Relu(h)
    }"""
    assert prove(text, PASS).reasons == {"m": "the output of fc is also read by r"}


def test_a_shared_weight():
    text = """g (float[3,4] x) => (float[3,5] y, float[3,5] z) <float[4,5] w, float[5] c> {
        h = Gemm(x, w)
        [m] y = Mul(h, c)
        [twin] z = Gemm(x, w)
    }"""
    assert "shared with twin" in prove(text, PASS).reasons["m"]


def test_a_division_by_zero_stays():
    text = "g (float[3,4] x) => (float[3,5] y) <float[4,5] w, float[5] c> { h = Gemm(x, w) y = Div(h, c) }"
    assert prove(text, PASS, inputs=[], c=[1, 2, 0, 1, 1]).changed == 0


def test_a_reciprocal_is_not_linear():
    text = "g (float[3,4] x) => (float[3,5] y) <float[4,5] w, float c = {2}> { h = Gemm(x, w) y = Div(c, h) }"
    assert prove(text, PASS).changed == 0


@pytest.mark.parametrize(
    ("steps", "ops", "saved"),
    [
        ("a = Mul(x, c) b = Add(a, d) e = Mul(b, d) y = Add(e, c)", {"Mul": 1, "Add": 1}, 2),
        ("a = Mul(x, c) y = Mul(a, d)", {"Mul": 1}, 1),
        ("a = Add(x, c) y = Sub(a, d)", {"Add": 1}, 1),
        ("a = Add(x, c) b = Mul(a, d) y = Div(b, c)", {"Mul": 1, "Add": 1}, 1),
        ("a = Mul(x, c) y = Add(a, d)", {"Mul": 1, "Add": 1}, 0),
        ("a = Add(x, c) y = Mul(a, d)", {"Mul": 1, "Add": 1}, 0),
        ("a = Sub(c, x) b = Sub(d, a) y = Mul(b, s)", {"Mul": 1, "Add": 1}, 1),
    ],
)
def test_chains(steps, ops, saved):
    proof = prove(
        f"g (float[2,4,3] x) => (float[2,4,3] y) <float[4,1] c, float[4,1] d, float s = {{2}}> {{ {steps} }}", PASS
    )
    assert (proof.ops, proof.changed) == (ops, saved)
    assert proof.graph.nodes[-1].outputs[0].name == "y"


def test_operands_along_different_axes_do_not_multiply_out():
    text = "g (float[2,40,30] x) => (float[2,40,30] y) <float[40,1] c, float[30] d> { a = Mul(x, c) y = Mul(a, d) }"
    assert prove(text, PASS).changed == 0


def test_a_chain_that_others_look_into():
    text = "g (float[4] x) => (float[4] y, float[4] a) <float[4] c> { a = Mul(x, c) y = Mul(a, c) }"
    assert prove(text, PASS).changed == 0


def test_integers_stay():
    text = "g (int64[4] x) => (int64[4] y) <int64 c = {2}> { a = Mul(x, c) y = Mul(a, c) }"
    assert prove(text, PASS).changed == 0


def test_a_layer_outside_a_subgraph_is_not_scaled_from_within():
    text = """g (float[3,4] x, bool k) => (float[3,5] y) <float[4,5] w, float[5] c> {
        h = Gemm(x, w)
        y = If (k) <
            then_branch = t () => (float[3,5] a) { a = Mul(h, c) },
            else_branch = e () => (float[3,5] b) { i = Gemm(x, w) b = Mul(i, c) }
        >
    }"""
    proof = prove(text, PASS)
    assert proof.ops == {"Gemm": 2, "If": 1, "Mul": 2}
    own = text.replace("i = Gemm(x, w)", "i = Gemm(x, v)").replace("float[4,5] w,", "float[4,5] w, float[4,5] v,")
    assert prove(own, PASS).ops == {"Gemm": 2, "If": 1, "Mul": 1}


def test_half_precision():
    text = """g (float16[3,4] x) => (float16[3,5] y) <float16[4,5] w, float16[5] c> {
        h = Gemm(x, w)
        y = Mul(h, c)
    }"""
    proof = prove(text, PASS, tolerance=4e-3)
    assert proof.ops == {"Gemm": 1}
    assert proof.graph.nodes[0].inputs[1].values.dtype == np.float16
