"""fold-batchnorm: into every kind of layer upstream, downstream where exact, or as Mul and Add of its own."""

import numpy as np
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.fold_batchnorm import FoldBatchNorm
from onnxq.passes.fold_constants import FoldConstants
from support.cases.batch_norm import CONV, bn, norm, values
from support.prove.passes import prove
from support.runs import run

PASS = FoldBatchNorm()

AFTER = {
    "Conv": ("float[6,4,3,3] w", "h = Conv(x, w)", 6),
    "Conv with bias": ("float[6,4,3,3] w, float[6] b", "h = Conv<pads = [1, 1, 1, 1]>(x, w, b)", 6),
    "depthwise Conv": ("float[4,1,3,3] w", "h = Conv<group = 4>(x, w)", 4),
    "grouped Conv": ("float[6,2,3,3] w, float[6] b", "h = Conv<group = 2>(x, w, b)", 6),
    "ConvTranspose": ("float[4,6,3,3] w, float[6] b", "h = ConvTranspose<strides = [2, 2]>(x, w, b)", 6),
    "grouped ConvTranspose": (
        "float[4,3,3,3] w",
        "h = ConvTranspose<group = 2, strides = [2, 2], output_padding = [1, 1]>(x, w)",
        6,
    ),
    "depthwise ConvTranspose": ("float[4,1,2,2] w", "h = ConvTranspose<group = 4, strides = [2, 2]>(x, w)", 4),
}


@pytest.mark.parametrize("case", AFTER)
@pytest.mark.parametrize("opset", [9, 14, 17])
def test_after_a_convolution(case, opset):
    declared, layer, channels = AFTER[case]
    proof = prove(
        f"g ({CONV} <{declared}, {bn(channels)}> "
        f"{{ {layer} y = BatchNormalization<epsilon = 0.01>(h, ga, be, mu, va) }}",
        PASS,
        opset=opset,
        **values(channels),
    )
    assert proof.changed == 1
    assert len(proof.graph.nodes) == 1
    assert proof.graph.nodes[0].outputs[0].name == "y"
    assert proof.reasons == {}


def test_after_a_convolution_of_one_dimension():
    proof = prove(
        f"g (float[2,3,9] x) => (float[2,5,7] y) <float[5,3,3] w, {bn(5)}> {{ h = Conv(x, w) y = {norm('h')} }}",
        PASS,
        **values(5),
    )
    assert proof.ops == {"Conv": 1}


GEMM = {
    "transB, no bias": ("float[5,4] w", "Gemm<transB = 1>(x, w)"),
    "no transB, bias": ("float[4,5] w, float[5] c", "Gemm(x, w, c)"),
    "alpha and beta": ("float[4,5] w, float[5] c", "Gemm<alpha = 0.5, beta = 3.0>(x, w, c)"),
    "beta zero": ("float[4,5] w, float[5] c", "Gemm<beta = 0.0>(x, w, c)"),
    "alpha, no bias": ("float[4,5] w", "Gemm<alpha = 2.0>(x, w)"),
    "scalar bias": ("float[4,5] w, float[1] c", "Gemm(x, w, c)"),
    "bias for each row": ("float[4,5] w, float[3,1] c", "Gemm(x, w, c)"),
    "matrix bias": ("float[4,5] w, float[3,5] c", "Gemm<beta = 0.5>(x, w, c)"),
    "MatMul": ("float[4,5] w", "MatMul(x, w)"),
}


@pytest.mark.parametrize("case", GEMM)
def test_after_a_matrix_product(case):
    declared, layer = GEMM[case]
    proof = prove(
        f"g (float[3,4] x) => (float[3,5] y) <{declared}, {bn(5)}> {{ h = {layer} y = {norm('h')} }}",
        PASS,
        **values(5),
    )
    assert proof.changed == 1
    assert "BatchNormalization" not in proof.ops
    assert proof.ops == ({"MatMul": 1, "Add": 1} if case == "MatMul" else {"Gemm": 1})


def test_after_a_transposed_gemm_input():
    proof = prove(
        f"g (float[4,3] x) => (float[3,5] y) <float[5,4] w, {bn(5)}> "
        f"{{ h = Gemm<transA = 1, transB = 1>(x, w) y = {norm('h')} }}",
        PASS,
        **values(5),
    )
    assert proof.ops == {"Gemm": 1}


@pytest.mark.parametrize("add", ["Add(m, c)", "Add(c, m)"])
@pytest.mark.parametrize("shape", ["5", "1,5", "1"])
def test_after_a_matmul_with_bias(add, shape):
    proof = prove(
        f"g (float[3,4] x) => (float[3,5] y) <float[4,5] w, float[{shape}] c, {bn(5)}> "
        f"{{ m = MatMul(x, w) h = {add} y = {norm('h')} }}",
        PASS,
        **values(5),
    )
    assert proof.ops == {"MatMul": 1, "Add": 1}


def test_a_scale_alone_leaves_a_matmul_without_add():
    proof = prove(
        f"g (float[3,4] x) => (float[3,5] y) <float[4,5] w, {bn(5)}> {{ h = MatMul(x, w) y = {norm('h')} }}",
        PASS,
        **values(5) | {"be": 0, "mu": 0},
    )
    assert proof.ops == {"MatMul": 1}


def test_the_channels_of_a_batched_matmul_are_not_the_normalized_ones():
    proof = prove(
        f"g (float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w, {bn(3)}> {{ h = MatMul(x, w) [n] y = {norm('h')} }}",
        PASS,
        **values(3),
    )
    assert proof.ops == {"MatMul": 1, "Mul": 1, "Add": 1}
    assert "channels" in proof.report.notes[0]


def test_two_after_one_convolution():
    text = f"g ({CONV} <float[6,4,3,3] w, {bn(6)}> {{ h = Conv(x, w) i = {norm('h')} y = {norm('i')} }}"
    proof = prove(text, PASS, **values(6))
    assert (proof.ops, proof.changed) == ({"Conv": 1}, 2)


@pytest.mark.parametrize(
    ("layer", "declared"),
    [
        ("Conv(h, w)", "float[6,4,3,3] w"),
        ("Conv<group = 2>(h, w, b)", "float[6,2,3,3] w, float[6] b"),
        ("Conv<group = 4, strides = [2, 2]>(h, w)", "float[4,1,3,3] w"),
        ('Conv<auto_pad = "VALID">(h, w)', "float[6,4,3,3] w"),
        ('Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(h, w)', "float[6,4,1,1] w"),
    ],
)
def test_before_a_convolution_that_does_not_pad(layer, declared):
    proof = prove(f"g ({CONV} <{declared}, {bn(4)}> {{ h = {norm('x')} y = {layer} }}", PASS, **values(4))
    assert proof.ops == {"Conv": 1}
    assert proof.reasons == {}


@pytest.mark.parametrize(
    ("layer", "declared"),
    [
        ("Conv<pads = [1, 1, 1, 1]>(h, w)", "float[6,4,3,3] w"),
        ('Conv<auto_pad = "SAME_LOWER">(h, w)', "float[6,4,3,3] w"),
        ("ConvTranspose<strides = [2, 2]>(h, w)", "float[4,6,3,3] w"),
        ("ConvTranspose<group = 2>(h, w)", "float[4,3,3,3] w"),
    ],
)
def test_before_padding_only_without_a_shift(layer, declared):
    text = f"g ({CONV} <{declared}, {bn(4)}> {{ [n] h = {norm('x')} y = {layer} }}"
    shifted = prove(text, PASS, **values(4))
    assert shifted.ops == {"Mul": 1, "Add": 1, layer.partition("<")[0]: 1}
    assert "shift" in shifted.report.notes[0]
    scaled = prove(text, PASS, **values(4) | {"be": 0, "mu": 0})
    assert len(scaled.graph.nodes) == 1


BEFORE_PRODUCT = {
    "Gemm": ("float[4,5] w, float[5] c", "y = Gemm<alpha = 0.5, beta = 2.0>(h, w, c)", {"Gemm": 1}),
    "Gemm transB": ("float[5,4] w", "y = Gemm<transB = 1>(h, w)", {"Gemm": 1}),
    "MatMul": ("float[4,5] w", "y = MatMul(h, w)", {"MatMul": 1, "Add": 1}),
    "MatMul and Add": ("float[4,5] w, float[5] c", "m = MatMul(h, w) y = Add(m, c)", {"MatMul": 1, "Add": 1}),
}


@pytest.mark.parametrize("case", BEFORE_PRODUCT)
def test_before_a_matrix_product(case):
    declared, layer, ops = BEFORE_PRODUCT[case]
    proof = prove(
        f"g (float[3,4] x) => (float[3,5] y) <{declared}, {bn(4)}> {{ h = {norm('x')} {layer} }}",
        PASS,
        **values(4),
    )
    assert proof.ops == ops


def test_before_a_gemm_that_transposes_its_input():
    proof = prove(
        f"g (float[3,4] x) => (float[4,5] y) <float[3,5] w, {bn(4)}> "
        f"{{ [n] h = {norm('x')} y = Gemm<transA = 1>(h, w) }}",
        PASS,
        **values(4),
    )
    assert proof.ops == {"Mul": 1, "Add": 1, "Gemm": 1}
    assert "transposes" in proof.report.notes[0]


def test_the_layer_before_is_preferred():
    proof = prove(
        f"g ({CONV} <float[4,4,1,1] v, float[6,4,1,1] w, {bn(4)}> {{ c = Conv(x, v) h = {norm('c')} y = Conv(h, w) }}",
        PASS,
        **values(4),
    )
    assert proof.ops == {"Conv": 2}
    assert len(proof.graph.nodes[0].inputs) == 3
    assert len(proof.graph.nodes[1].inputs) == 2


def test_a_pair_before_a_convolution():
    proof = prove(
        f"g ({CONV} <float[6,4,3,3] w, {bn(4)}> {{ a = {norm('x')} b = {norm('a')} y = Conv(b, w) }}",
        PASS,
        **values(4),
    )
    assert (proof.ops, proof.changed) == ({"Conv": 1}, 2)


@pytest.mark.parametrize("shape", ["2,4", "2,4,5", "2,4,5,5", "2,4,3,3,3"])
def test_on_its_own_it_becomes_scale_and_shift(shape):
    text = f"g (float[{shape}] x) => (float[{shape}] y) <{bn(4)}> {{ [n] y = {norm('x')} }}"
    proof = prove(text, PASS, **values(4))
    assert proof.ops == {"Mul": 1, "Add": 1}
    assert proof.changed == 1
    reason = "no layer directly upstream; no layer as its only reader"
    assert proof.report.notes == (f"1 became Mul and Add: {reason}: n",)
    assert proof.reasons == {}
    kept = prove(text, FoldBatchNorm(standalone=False), **values(4))
    assert (kept.changed, kept.ops) == (0, {"BatchNormalization": 1})
    assert kept.reasons == {"n": reason}


def test_a_neutral_part_is_left_out():
    text = (
        f"g (float[2,4] x) => (float[2,4] y) <{bn(4)}> {{ y = BatchNormalization<epsilon = 0.0>(x, ga, be, mu, va) }}"
    )
    assert prove(text, PASS, ga=1, va=1, mu=0, be=2).ops == {"Add": 1}
    assert prove(text, PASS, ga=3, va=1, mu=0, be=0).ops == {"Mul": 1}
    assert prove(text, PASS, ga=1, va=1, mu=0, be=0).ops == {"Mul": 1}


def test_resnet20_on_real_images(shared):
    """The figure that must be shown: logits equal to the float model's within 1e-4."""
    source = load(shared / "models" / "resnet20_cifar10.onnx")
    passes = [FoldConstants(), EliminateIdentity(), PASS]
    data = np.load(shared / "data" / "cifar10_val.npz")["images"][:64]
    mean, std = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])
    images = ((data - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    before = run(source, {"input": images})["logits"]
    report = pipeline.run(source, passes, PassContext(source))[-1]
    assert report.changed == 21
    assert not [n for n in source.graph.nodes if n.op == "BatchNormalization"]
    assert np.abs(run(source, {"input": images})["logits"] - before).max() <= 1e-4
