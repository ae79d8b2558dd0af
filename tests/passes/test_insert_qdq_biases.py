"""insert-qdq on biases: their scales, those that stay float, and weight scales widened so that they fit."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.graph.match import constant_values
from support.build import qdq
from support.insertion import context, insert
from support.prove.nodes import dequantize_of, dequantized, node_of, reads, reasons
from support.prove.values import sqnr
from support.runs import run
from support.small_net import NET, check


def test_grouped_transposed_convolution_with_bias() -> None:
    model = qdq.model(
        """g (float[1,4,5,5] x) => (float[1,6,7,7] y) <float[4,3,3,3] w, float[6] b>
        { [n] y = ConvTranspose<group=2>(x, w, b) }""",
        b=np.array([1, -2, 3, -4, 5, -6], np.float32),
    )
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    insert(model, context(model, feeds=[feed]))
    check(model)
    assert constant_values(dequantize_of(model, "n", 1).inputs[1]).shape == (3,)
    np.testing.assert_allclose(dequantized(model, "n", 2), [1, -2, 3, -4, 5, -6], atol=1e-3)
    assert sqnr(expected, run(model, feed)["y"]) > 35


def test_bias_scale_is_the_product_and_codes_are_int32() -> None:
    model = qdq.model(NET)
    insert(model)
    for name, weight_axis in (("conv", 0), ("depthwise", 0), ("fc", 0)):
        dq = [dequantize_of(model, name, i) for i in range(3)]
        x_scale, w_scale, b_scale = (constant_values(d.inputs[1]) for d in dq)
        np.testing.assert_array_equal(b_scale, x_scale * w_scale)
        assert constant_values(dq[2].inputs[0]).dtype == np.int32 and len(dq[2].inputs) == 2
        assert dq[1].attrs["axis"] == weight_axis and dq[2].attrs["axis"] == 0


@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime-cuda", "openvino"])
def test_bias_stays_float_where_the_target_wants_it(profile: str) -> None:
    model = qdq.model(NET)
    report = insert(model, context(model, profile))
    for name in ("conv", "depthwise", "project", "fc"):
        assert reads(model, name) == ["DQ", "DQ", "const"]
    assert not any("bias" in r for r in reasons(report).values())


BIASES = {
    "run time": (
        "g (float[2,3] x, float[4] b) => (float[2,4] y) <float[3,4] w> { [n] y = Gemm(x, w, b) }",
        "its bias is computed at run time; left in float",
    ),
    "alpha": (
        "g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[4] b> { [n] y = Gemm<alpha=0.5>(x, w, b) }",
        "alpha or beta is not 1; its bias is left in float",
    ),
    "beta": (
        "g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[4] b> { [n] y = Gemm<beta=0.5>(x, w, b) }",
        "alpha or beta is not 1; its bias is left in float",
    ),
    "one for all": (
        "g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float b> { [n] y = Gemm(x, w, b) }",
        "its bias is not per-channel; left in float",
    ),
    "one a row": (
        "g (float[4,3] x) => (float[4,4] y) <float[3,4] w, float[4,1] b> { [n] y = Gemm(x, w, b) }",
        "its bias is not per-channel; left in float",
    ),
    "whole matrix": (
        "g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[2,4] b> { [n] y = Gemm(x, w, b) }",
        "its bias is not per-channel; left in float",
    ),
}


@pytest.mark.parametrize("case", BIASES)
def test_biases_that_stay_float(case: str) -> None:
    text, reason = BIASES[case]
    model = qdq.model(text)
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    report = insert(model, context(model, feeds=[feed]))
    assert [f.reason for f in report.skipped if f.node == "n"] == [reason]  # told once
    assert reads(model, "n")[:2] == ["DQ", "DQ"] and reads(model, "n")[2] in ("const", "b")
    assert sqnr(expected, run(model, feed)["y"]) > 30


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bias_that_is_not_finite_stays_as_it_is(value: float) -> None:
    text = "g (float[1,3,4,4] x) => (float[1,2,4,4] y) <float[2,3,1,1] w, float[2] b> { [n] y = Conv(x, w, b) }"
    model = qdq.model(text)
    ctx = context(model)
    node_of(model, "n").inputs[2].values = np.array([1, value], np.float32)
    report = insert(model, ctx)
    assert reasons(report) == {"n": "its bias holds NaN or infinity; left in float"}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("call", ["Add(m, b)", "Add(b, m)", "Add(m, c)"])
def test_bias_behind_a_matmul(call: str, bits: int) -> None:
    model = qdq.model(
        f"""g (float[2,5,16] x) => (float[2,5,8] y) <float[16,8] w, float[8] b, float[1,1,8] c>
        {{ [mm] m = MatMul(x, w) [add] n = {call} [relu] y = Relu(n) }}""",
        opset=21,
    )
    feeds = qdq.feeds(model)
    values = constant_values(next(t for t in node_of(model, "add").inputs if t.name in "bc"))
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, "onnxq", feeds, weight_bits=bits, first_last_bits=None), fuse=True)
    check(model)
    index = 0 if call == "Add(b, m)" else 1
    dq = dequantize_of(model, "add", index)
    assert constant_values(dq.inputs[0]).dtype == np.int32 and reads(model, "add")[1 - index] == "m"
    np.testing.assert_allclose(dequantized(model, "add", index), values, atol=2e-3)
    x_scale, w_scale = (constant_values(dequantize_of(model, "mm", i).inputs[1]) for i in (0, 1))
    np.testing.assert_array_equal(constant_values(dq.inputs[1]), x_scale * w_scale)
    assert insert(model, context(model, "onnxq", feeds)).changed == 0
    assert sqnr(expected, np.stack([run(model, f)["y"] for f in feeds])) > (35 if bits == 8 else 15)


def test_gemm_bias_with_a_leading_one() -> None:
    model = qdq.model("g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[1,4] b> { [n] y = Gemm(x, w, b) }")
    insert(model)
    check(model)
    assert dequantize_of(model, "n", 2).attrs["axis"] == 1 and run(model, qdq.feeds(model)[0])["y"].any()


def test_one_output_channel() -> None:
    model = qdq.model(
        "g (float[1,3,5,5] x) => (float[1,1,5,5] y) <float[1,3,1,1] w, float[1] b> { [n] y = Conv(x, w, b) }"
    )
    insert(model)
    check(model)
    assert reads(model, "n") == ["DQ", "DQ", "DQ"] and run(model, qdq.feeds(model)[0])["y"].any()


def test_a_bias_that_would_overflow_widens_its_channel_and_is_told() -> None:
    w = np.full((3, 2, 1, 1), 0.5, np.float32)
    w[1] = 1e-9  # 1e-9 / 127 · 1 / 255: the int32 bias would be about 3e13
    model = qdq.model(
        "g (float[1,2,4,4] x) => (float[1,3,4,4] y) <float[3,2,1,1] w, float[3] b> { [n] y = Conv(x, w, b) }",
        w=w,
        b=np.ones(3, np.float32),
    )
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    ctx = context(model, feeds=[feed])
    report = insert(model, ctx)
    assert report.notes == ("n: weight scale widened in 1 channel(s) so that the int32 bias fits",)
    assert ctx.placement is not None and ctx.placement.widened == {"n": 1}
    np.testing.assert_allclose(dequantized(model, "n", 2), 1, rtol=1e-3)
    assert sqnr(expected, run(model, feed)["y"]) > 35


def test_a_shared_weight_is_widened_for_the_largest_bias() -> None:
    w = np.full((2, 2, 1, 1), 0.5, np.float32)
    w[1] = 0
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) <float[2,2,1,1] w, float[2] b, float[2] c>
        { [n] y = Conv(x, w, b) [m] z = Conv(x, w, c) }""",
        w=w,
        b=np.array([0, 1e-4], np.float32),
        c=np.array([0, 1e9], np.float32),
    )
    insert(model)
    np.testing.assert_allclose(dequantized(model, "m", 2), [0, 1e9], rtol=1e-6)
    for name in "nm":
        codes = constant_values(dequantize_of(model, name, 2).inputs[0]).astype(np.int64)
        zero_point = int(constant_values(dequantize_of(model, name, 0).inputs[2]))
        assert (np.abs(codes) + 2 * max(zero_point, 255 - zero_point) * 127 <= 2**31 - 1).all()


def test_all_zero_channel() -> None:
    w = np.full((3, 2, 1, 1), 0.5, np.float32)
    w[1] = 0
    for bias in ([1.0, 3.0, 1.0], [1.0, 0.0, 1.0]):
        model = qdq.model(
            "g (float[1,2,4,4] x) => (float[1,3,4,4] y) <float[3,2,1,1] w, float[3] b> { [n] y = Conv(x, w, b) }",
            w=w,
            b=np.array(bias, np.float32),
        )
        insert(model)
        np.testing.assert_allclose(dequantized(model, "n", 2), bias, rtol=1e-4)
        assert not dequantized(model, "n", 1)[1].any()
