"""fuse-matmul-add: a matrix product and its bias are one Gemm."""

import pytest

from onnxq.passes.fuse_matmul_add import FuseMatMulAdd
from support.prove.passes import prove

PASS = FuseMatMulAdd()


@pytest.mark.parametrize("add", ["Add(m, c)", "Add(c, m)"])
@pytest.mark.parametrize(
    "bias", ["float[5] c", "float[1,5] c", "float[1] c", "float c = {2}", "float[3,5] c", "float[3,1] c"]
)
def test_matrices(add, bias):
    proof = prove(
        f"g (float[3,4] x) => (float[3,5] y) <float[4,5] w, {bias}> {{ [fc] m = MatMul(x, w) y = {add} }}", PASS
    )
    assert (proof.changed, proof.ops) == (1, {"Gemm": 1})
    assert proof.node("fc").outputs[0].name == "y"


def test_dynamic_rows_and_computed_factors():
    proof = prove(
        "g (float[N,4] x, float[4,5] w) => (float[N,5] y) <float[5] c> { m = MatMul(x, w) y = Add(m, c) }", PASS
    )
    assert proof.ops == {"Gemm": 1}


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (
            "g (float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w, float[5] c>",
            "fc multiplies tensors of rank 3 and 2",
        ),
        (
            "g (float[3,4] x) => (float[2,3,5] y) <float[4,5] w, float[2,1,1] c>",
            "the operand it adds is larger than the product",
        ),
        (
            "g (float[3,4] x) => (float[3,5] y, float[3,5] m) <float[4,5] w, float[5] c>",
            "the output of fc is also a graph output",
        ),
        (
            "g (int32[3,4] x) => (int32[3,5] y) <int32[4,5] w, int32[5] c>",
            "Gemm requires floating point",
        ),
    ],
)
def test_why_not(signature, reason):
    proof = prove(f"{signature} {{ [fc] m = MatMul(x, w) [add] y = Add(m, c) }}", PASS)
    assert (proof.changed, proof.reasons) == (0, {"add": reason})


def test_an_add_of_a_computed_tensor_is_no_bias():
    proof = prove(
        "g (float[3,4] x, float[3,5] z) => (float[3,5] y) <float[4,5] w> { m = MatMul(x, w) y = Add(m, z) }", PASS
    )
    assert (proof.changed, proof.reasons) == (0, {})


def test_inside_subgraphs_but_not_across_them():
    proof = prove(
        """g (float[3,4] x, bool k) => (float[3,5] y) <float[4,5] w, float[5] c> {
            m = MatMul(x, w)
            y = If (k) <
                then_branch = t () => (float[3,5] a) { a = Add(m, c) },
                else_branch = e () => (float[3,5] b) { n = MatMul(x, w) b = Add(n, c) }
            >
        }""",
        PASS,
    )
    assert proof.ops == {"MatMul": 1, "If": 1, "Add": 1, "Gemm": 1}
