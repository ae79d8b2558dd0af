"""insert-qdq on weights: the channel axis of each operator, and weights that several nodes read."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.graph.match import constant_values
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from support.build import qdq
from support.insertion import context, insert
from support.prove.nodes import dequantize_of, dequantized, node_of, reads
from support.prove.values import sqnr
from support.runs import run
from support.small_net import check

S8 = QuantFormat(8, narrow_range=True)


# The channel axis of each operator (Conv 0, ConvTranspose 1, Gemm by transB, MatMul last)

AXES = {
    "Conv": ("float[1,3,5,5] x", "float[1,4,3,3] y", "float[4,3,3,3] w", "Conv(x, w)", 0),
    "Conv in groups": ("float[1,4,5,5] x", "float[1,4,3,3] y", "float[4,2,3,3] w", "Conv<group=2>(x, w)", 0),
    "Conv depthwise": ("float[1,4,5,5] x", "float[1,4,3,3] y", "float[4,1,3,3] w", "Conv<group=4>(x, w)", 0),
    "Conv 1-D": ("float[1,3,5] x", "float[1,4,3] y", "float[4,3,3] w", "Conv(x, w)", 0),
    "ConvTranspose": ("float[1,3,5,5] x", "float[1,4,7,7] y", "float[3,4,3,3] w", "ConvTranspose(x, w)", 1),
    "ConvTranspose in groups": (
        "float[1,4,5,5] x", "float[1,6,7,7] y", "float[4,3,3,3] w", "ConvTranspose<group=2>(x, w)", 1,
    ),
    "Gemm": ("float[2,3] x", "float[2,4] y", "float[3,4] w", "Gemm(x, w)", 1),
    "Gemm transB": ("float[2,3] x", "float[2,4] y", "float[4,3] w", "Gemm<transB=1>(x, w)", 0),
    "Gemm transA": ("float[3,2] x", "float[2,4] y", "float[3,4] w", "Gemm<transA=1>(x, w)", 1),
    "MatMul": ("float[2,5,3] x", "float[2,5,4] y", "float[3,4] w", "MatMul(x, w)", 1),
    # onnxruntime 1.31 fuses scales a column with a stack of matrices, and fails when it runs
    "MatMul batched": ("float[2,5,3] x", "float[2,5,4] y", "float[2,3,4] w", "MatMul(x, w)", None),
    "MatMul vector": ("float[2,3] x", "float[2] y", "float[3] w", "MatMul(x, w)", None),
}  # fmt: skip


@pytest.mark.parametrize("case", AXES)
def test_channel_axis(case: str) -> None:
    data, out, weight, call, axis = AXES[case]
    text = f"g ({data}) => ({out}) <{weight}> {{ [n] y = {call} }}"
    shape = [int(d) for d in weight[weight.index("[") + 1 : weight.index("]")].split(",")]
    w = np.random.default_rng(0).uniform(0.1, 1.0, shape).astype(np.float32)
    if axis is not None:
        # One channel a million times larger: on any other axis its scale would crush the others to zero.
        index: list[slice | int] = [slice(None)] * w.ndim
        index[axis] = 1
        w[tuple(index)] *= 1e6
    model = qdq.model(text, w=w)
    insert(model)
    check(model)
    node = dequantize_of(model, "n", 1)
    scale = constant_values(node.inputs[1])
    assert scale.shape == (() if axis is None else (shape[axis],))
    assert node.attrs.get("axis") == axis
    np.testing.assert_allclose(dequantized(model, "n"), w, rtol=0.05)
    for optimize in (False, True):
        assert run(model, qdq.feeds(model)[0], optimize)["y"].size


def test_matmul_with_the_constant_first() -> None:
    model = qdq.model("g (float[3,4] x) => (float[2,4] y) <float[2,3] w> { [n] y = MatMul(w, x) }")
    w = constant_values(node_of(model, "n").inputs[0])
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    insert(model, context(model, feeds=[feed]))
    assert reads(model, "n") == ["DQ", "DQ"]
    np.testing.assert_array_equal(dequantized(model, "n", 0), fake_quantize(w, weight_qparams(w, S8, None)))
    assert sqnr(expected, run(model, feed)["y"]) > 35


# Weights that several nodes read


def test_a_weight_shared_by_several_layers_is_stored_once() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4] b>
        { [a] t = Conv(x, w, b) [b] u = Conv(t, w, b) [c] y = Conv(u, w) }"""
    )
    insert(model)
    check(model)
    dq = [dequantize_of(model, n, 1) for n in "abc"]
    assert dq[0] is dq[1] is dq[2]
    # The bias is shared, but its scale is not: it follows the input.
    assert dequantize_of(model, "a", 2) is not dequantize_of(model, "b", 2)
    for name in "ab":
        x_scale = constant_values(dequantize_of(model, name, 0).inputs[1])
        np.testing.assert_array_equal(
            constant_values(dequantize_of(model, name, 2).inputs[1]), x_scale * constant_values(dq[0].inputs[1])
        )


def test_a_weight_shared_along_different_axes_is_quantized_for_each() -> None:
    w = np.ones((4, 4), np.float32)
    w[1] = 1000
    model = qdq.model(
        """g (float[2,4] x) => (float[2,4] y, float[2,4] z) <float[4,4] w>
        { [n] y = MatMul(x, w) [t] z = Gemm<transB=1>(x, w) }""",
        w=w,
    )
    insert(model)
    check(model)
    assert dequantize_of(model, "n", 1).attrs["axis"] == 1 and dequantize_of(model, "t", 1).attrs["axis"] == 0
    np.testing.assert_allclose(dequantized(model, "t"), w, rtol=0.01)


def test_a_weight_that_a_float_node_reads_too_stays_float_there() -> None:
    model = qdq.model(
        """g (float[2,4] x) => (float[2,4] y, float[4,4] z) <float[4,4] w>
        { [n] y = MatMul(x, w) [e] z = Exp(w) }"""
    )
    values = constant_values(node_of(model, "e").inputs[0]).copy()
    insert(model)
    assert reads(model, "n")[1] == "DQ" and reads(model, "e") == ["const"]
    np.testing.assert_array_equal(constant_values(node_of(model, "e").inputs[0]), values)
