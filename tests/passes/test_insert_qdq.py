"""insert-qdq: what it writes, that it computes what the arithmetic says, and that it does so once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ml_dtypes import int4

from onnxq import pipeline
from onnxq.calibrate.statistics import Statistics
from onnxq.errors import PreconditionError
from onnxq.graph import marks
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model, to_proto
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from onnxq.passes.insert_qdq import InsertQdq, needed_opset
from onnxq.placement.planner import plan
from onnxq.placement.settings import Override, QuantSettings
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import copy_of, qdq
from support.insertion import context, insert, observe, profile_of
from support.prove.nodes import dequantize_of, dequantized, node_of, nodes_of, reads, reasons
from support.prove.values import sqnr
from support.runs import run

S8 = QuantFormat(8, narrow_range=True)
U8 = QuantFormat(8, signed=False, symmetric=False)

NET = """net (float[1,3,8,8] x) => (float[1,10] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2,
 float[8,8,1,1] w3, float[8] b3, float[10,8] w4, float[10] b4>
{
    [conv] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [relu] r = Relu(c)
    [depthwise] d = Conv<pads=[1,1,1,1], group=8>(r, w2, b2)
    [project] p = Conv(d, w3, b3)
    [add] a = Add(p, r)
    [pool] g = GlobalAveragePool(a)
    [flatten] f = Flatten(g)
    [fc] y = Gemm<transB=1>(f, w4, b4)
}"""


def check(model: Model) -> None:
    onnx.checker.check_model(to_proto(model), full_check=True)


# The arithmetic of one layer


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "fbgemm", "snpe", "tvm"])
def test_one_convolution_equals_its_numpy_model_exactly(profile: str) -> None:
    text = "g (float[2,3,5,5] x) => (float[2,4,5,5] y) <float[4,3,1,1] w, float[4] b> { [c] y = Conv(x, w, b) }"
    model = qdq.model(text)
    w, b = (constant_values(t) for t in node_of(model, "c").inputs[1:])
    feeds = qdq.feeds(model)
    floats = [run(model, f)["y"] for f in feeds]
    x_all, y_all = np.concatenate([f["x"] for f in feeds]), np.concatenate(floats)
    insert(model, context(model, profile, feeds))
    check(model)

    target = load_profile(profile)
    per_channel = 0 if target.weights.granularity == "per-channel" else None
    activation = target.activations.format(8, False)
    qx = qparams_from_range(x_all.min(), x_all.max(), activation)
    qw = weight_qparams(w, target.weights.format(8), per_channel)
    bias = b
    if target.bias == "int32":
        scale = (qx.scale * qw.scale).astype(np.float32)
        bias = np.rint(b.astype(np.float64) / scale).astype(np.int32) * scale
    for feed in feeds:
        x, weight = fake_quantize(feed["x"], qx), fake_quantize(w, qw)
        acc = np.einsum("nchw,mc->nmhw", x.astype(np.float64), weight[:, :, 0, 0].astype(np.float64))
        expected = acc + bias.reshape(1, -1, 1, 1)
        found = run(model, feed)["y"]
        if target.rule("Conv").output == "always":
            qy = qparams_from_range(y_all.min(), y_all.max(), activation)
            # Integers decide, not the last float bit: elements that are not within 1e-4 of a tie are equal.
            steps = expected / float(qy.scale)
            clear = np.abs(np.abs(steps - np.floor(steps)) - 0.5) > 1e-4
            assert clear.mean() > 0.99
            np.testing.assert_array_equal(found[clear], fake_quantize(expected.astype(np.float32), qy)[clear])
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("profile", builtin_names())
def test_whole_net_stays_close_to_float(profile: str) -> None:
    model = qdq.model(NET, seed=3)
    feeds = qdq.feeds(model, 4)
    floats = [run(model, f)["y"] for f in feeds]
    report = insert(model, context(model, profile, feeds), fuse=True)
    assert report.changed > 0
    check(model)
    quantized = [run(model, f)["y"] for f in feeds]
    bound = {"tvm": 18, "snpe": 22}.get(profile, 25)  # dB; power-of-two scales cost up to a bit
    assert sqnr(np.stack(floats), np.stack(quantized)) > bound


LAYERS = {
    "Conv": ("float[1,4,8,8] x", "float[1,8,8,8] y", "float[8,4,3,3] w, float[8] b", "Conv<pads=[1,1,1,1]>(x, w, b)"),
    "depthwise": ("float[1,8,8,8] x", "float[1,8,8,8] y", "float[8,1,3,3] w", "Conv<pads=[1,1,1,1], group=8>(x, w)"),
    "Gemm": ("float[4,16] x", "float[4,8] y", "float[8,16] w, float[8] b", "Gemm<transB=1>(x, w, b)"),
    "MatMul": ("float[4,16] x", "float[4,8] y", "float[16,8] w", "MatMul(x, w)"),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("profile", builtin_names())
def test_a_layer_is_the_same_with_and_without_optimization(profile: str, layer: str) -> None:
    data, out, constants, call = LAYERS[layer]
    model = qdq.model(f"g ({data}) => ({out}) <{constants}> {{ [n] t = {call} [r] y = Relu(t) }}")
    feeds = qdq.feeds(model, 4)
    step = max(float(run(model, f)["y"].max()) for f in feeds) / 255
    insert(model, context(model, profile, feeds), fuse=True)
    for feed in feeds:
        off, on = run(model, feed)["y"], run(model, feed, optimize=True)["y"]
        lsb = step * (4 if profile == "tvm" else 2.1)  # signed: 127 steps, power of two: up to twice that
        assert float(np.abs(on - off).max()) <= lsb


@pytest.mark.parametrize("profile", builtin_names())
def test_idempotent(profile: str) -> None:
    model = qdq.model(NET)
    ctx = context(model, profile)
    insert(model, ctx)
    placement = ctx.placement
    before = to_proto(model).SerializeToString(deterministic=True)
    report = insert(model, ctx)
    assert report.changed == 0 and ctx.placement is placement
    assert to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_to_quantize() -> None:
    model = qdq.model("g (float[4] x) => (float[4] y) { [r] y = Relu(x) }")
    report = insert(model)
    assert report.changed == 0 and reasons(report) == {"r": "profile onnxruntime-cpu runs Relu in float"}


# The channel axis of each operator (issue: Conv 0, ConvTranspose 1, Gemm by transB, MatMul last)

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


# Weights and biases


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


# Bits


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_of_every_width(bits: int) -> None:
    model = qdq.model(NET, opset=21)
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    insert(model, context(model, feeds=[feed], weight_bits=bits, first_last_bits=None))
    check(model)
    for name in ("conv", "depthwise", "project", "fc"):
        node = dequantize_of(model, name, 1)
        codes = constant_values(node.inputs[0])
        assert codes.dtype == (int4 if bits <= 4 else np.int8)
        assert constant_values(node.inputs[2]).dtype == codes.dtype
        limit = 2 ** (bits - 1) - 1
        assert int(codes.astype(int).min()) >= -limit and int(codes.astype(int).max()) <= limit
        assert int(np.abs(codes.astype(int)).max()) == limit
        assert getattr(node, "metadata", {}).get(marks.BITS.key) == (None if bits in (4, 8) else str(bits))
    reread = copy_of(model)
    for optimize in (False, True):
        found = run(reread, feed, optimize)["y"]
        assert sqnr(expected, found) > 4 * bits - 8
    if bits <= 4:
        packed = next(t for t in to_proto(reread).graph.initializer if t.name == "w3_quantized")
        assert packed.data_type == onnx.TensorProto.INT4 and len(packed.raw_data) == 8 * 8 // 2


def test_4_bits_need_opset_21() -> None:
    model = qdq.model(NET, opset=13)
    ctx = context(model, weight_bits=4)
    with pytest.raises(PreconditionError, match=r"opset 13, needed is 21: run convert-opset\{version=21\}"):
        insert(model, ctx)
    target = load_profile("onnxq")
    for bits, opset in ((4, 21), (5, 13), (8, 13)):
        assert needed_opset(target, plan(model.graph, target, QuantSettings(weight_bits=bits))) == opset


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "onnxq"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_activations_of_every_width(bits: int, profile: str) -> None:
    model = qdq.model(NET)
    feeds = qdq.feeds(model)
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, profile, feeds, activation_bits=bits, first_last_bits=None), fuse=True)
    check(model)
    assert nodes_of(model, "QuantizeLinear")
    for node in nodes_of(model, "QuantizeLinear"):
        assert constant_values(node.inputs[2]).dtype == np.uint8  # never a 4-bit type
        clip = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
        if bits == 8:
            assert clip is None or clip.op != "Clip"
            continue
        assert clip.op == "Clip" and clip.metadata == {marks.BITS.key: str(bits)}
    observed = to_proto(model)
    codes = [n.outputs[0].name for n in nodes_of(model, "QuantizeLinear")]
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in codes)
    for feed in feeds:
        off, on = run(observed, feed), run(observed, feed, optimize=True)
        for name in codes:
            assert int(off[name].max()) <= 2**bits - 1
            # The same at both levels, up to rounding: one code, where a float sum is that close to a tie.
            assert int(np.abs(off[name].astype(int) - on[name].astype(int)).max()) <= 1
    found = np.stack([run(model, f)["y"] for f in feeds])
    assert sqnr(expected, found) > 4 * bits - 8


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_narrow_activation_is_exactly_the_grid(bits: int) -> None:
    model = qdq.model("g (float[1,2,64,64] x) => (float[1,2,64,64] y) <float[2,2,1,1] w> { [n] y = Conv(x, w) }")
    feed = qdq.feeds(model, low=-3, high=5)[0]
    ctx = context(model, "onnxq", [feed], activation_bits=bits, first_last_bits=None)
    insert(model, ctx)
    x_dequantized = node_of(model, "n").inputs[0].name
    proto = to_proto(model)
    proto.graph.output.append(onnx.ValueInfoProto(name=x_dequantized))
    wild = {"x": feed["x"] * 2}  # outside the range too
    assert ctx.placement is not None
    expected = fake_quantize(wild["x"], ctx.placement.activation_qparams["x"])
    assert len(np.unique(expected)) == 2**bits
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, wild, optimize)[x_dequantized], expected)


def test_signed_narrow_activation() -> None:
    profile = profile_of("[graph]\nscheme = 2\n[activations]\nbits = [8, 4]\n[ops]\nConv = {}\n")
    model = qdq.model("g (float[1,2,16,16] x) => (float[1,2,16,16] y) <float[2,2,1,1] w> { [n] y = Conv(x, w) }")
    feed = qdq.feeds(model)[0]
    insert(model, context(model, profile, [feed], activation_bits=4, first_last_bits=None))
    (node,) = nodes_of(model, "QuantizeLinear")
    proto = to_proto(model)
    proto.graph.output.append(onnx.ValueInfoProto(name=node.outputs[0].name))
    codes = run(proto, feed, optimize=True)[node.outputs[0].name]
    assert codes.dtype == np.int8 and (codes.min(), codes.max()) in ((-8, 7), (-7, 7))


def test_first_and_last_layers_have_8_bits() -> None:
    model = qdq.model(NET, opset=21)
    insert(model, context(model, weight_bits=4, activation_bits=4))
    stored = {n: constant_values(dequantize_of(model, n, 1).inputs[0]).dtype for n in ("conv", "project", "fc")}
    assert stored == {"conv": np.int8, "project": int4, "fc": np.int8}


def test_overrides_by_name_and_regex() -> None:
    model = qdq.model(NET, opset=21)
    overrides = {
        "(conv|fc)": Override(weight_bits=4),
        "fc": Override(weight_bits=6),
        "depthwise": Override(keep_float=True),
    }
    ctx = context(model, overrides=overrides)
    report = insert(model, ctx)
    assert ctx.placement is not None
    assert {n: q.format.bits for n, q in ctx.placement.weight_qparams.items()} == {"conv": 4, "project": 8, "fc": 6}
    assert reads(model, "depthwise")[1] == "const"
    assert reasons(report)["depthwise"] == "left in float by the user"


# Graph inputs and outputs, other readers


def test_outputs_keep_their_names_and_readers_get_the_dequantized_tensor() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] t, float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [b] u = Conv(t, v) [e] y = Exp(t) }"""
    )
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)
    insert(model, context(model, feeds=[feed]))
    check(model)
    assert [o.name for o in model.graph.outputs] == ["t", "y"]
    assert node_of(model, "e").inputs[0] is model.graph.outputs[0]
    found = run(model, feed)
    assert sqnr(expected["t"], found["t"]) > 30 and len(np.unique(found["t"])) < 32
    np.testing.assert_allclose(found["y"], np.exp(found["t"]), rtol=1e-6)


def test_an_output_that_is_quantized_on_demand_only_stays_float() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] t, float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [b] y = Conv(t, v) }"""
    )
    insert(model, context(model, "tensorrt"))
    assert node_of(model, "a").outputs[0] is model.graph.outputs[0] and reads(model, "b")[0] == "DQ"


def test_a_graph_input_is_quantized_once_and_stays_float_for_float_readers() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z, float[1,2,4,4] e) <float[2,2,1,1] w>
        { [a] y = Conv(x, w) [b] z = Conv(x, w) [c] e = Exp(x) }"""
    )
    insert(model, context(model, "tensorrt"))
    assert len(nodes_of(model, "QuantizeLinear")) == 1
    assert node_of(model, "a").inputs[0] is node_of(model, "b").inputs[0]
    assert reads(model, "c") == ["x"] and model.graph.nodes[0].op == "QuantizeLinear"


def test_a_tensor_that_a_body_captures() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x, bool b) => (float[1,2,4,4] y) <float[2,2,1,1] w>
        { [conv] t = Conv(x, w)
          [branch] y = If(b) <then_branch = th () => (float[1,2,4,4] o) { [inner] o = Relu(t) },
                              else_branch = el () => (float[1,2,4,4] p) { p = Identity(x) }> }"""
    )
    feed = {"x": qdq.feeds(qdq.model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Relu(x) }"))[0]["x"]}
    stats = observe(model, [{**feed, "b": np.array(True)}][:0])
    for name in ("x", "t"):
        stats.tensor(name).update(np.array([-2, 2], np.float32))
    expected = run(model, {**feed, "b": np.array(True)})["y"]
    insert(model, context(model, statistics=stats))
    check(model)
    found = run(model, {**feed, "b": np.array(True)})["y"]
    assert sqnr(expected, found) > 25 and len(np.unique(found)) <= 256
    np.testing.assert_array_equal(run(model, {**feed, "b": np.array(False)})["y"], feed["x"])


def test_dynamic_batch() -> None:
    model = qdq.model(
        "g (float[N,3,H,W] x) => (float[N,4,H,W] y) <float[4,3,1,1] w, float[4] b> { [n] y = Conv(x, w, b) }"
    )
    feeds = qdq.feeds(model)
    insert(model, context(model, feeds=feeds))
    check(model)
    assert model.graph.outputs[0].shape == ["N", 4, "H", "W"]
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3, 7, 4)).astype(np.float32)
    whole = run(model, {"x": x})["y"]
    assert whole.shape == (5, 4, 7, 4)
    np.testing.assert_array_equal(whole[2:3], run(model, {"x": x[2:3]})["y"])


# Elementwise operators


@pytest.mark.parametrize("profile", ["acl", "tensorrt", "fbgemm", "qnn", "onnxq"])
@pytest.mark.parametrize(
    "call", ["Add(t, x)", "Sum(t, x)", "Sum(t, x, x)", "Sum(t)", "Add(t, t)", "Mul(t, x)", "Sub(x, t)", "Add(t, k)"]
)
def test_elementwise(call: str, profile: str) -> None:
    model = qdq.model(
        f"""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float[2,1,1] k>
        {{ [c] t = Conv(x, w) [n] y = {call} }}"""
    )
    feeds = qdq.feeds(model)
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, profile, feeds))
    check(model)
    found = np.stack([run(model, f)["y"] for f in feeds])
    assert sqnr(expected, found) > 30


def test_constant_operand_of_an_addition() -> None:
    k = np.array([0.5, 1.0, 2.55], np.float32).reshape(3, 1, 1)
    model = qdq.model("g (float[1,3,4,4] x) => (float[1,3,4,4] y) <float[3,1,1] k> { [n] y = Add(x, k) }", k=k)
    insert(model, context(model, "qnn"))
    check(model)
    assert reads(model, "n") == ["DQ", "DQ"]
    np.testing.assert_allclose(dequantized(model, "n"), k, atol=0.01)


# Scales that are shared


def scales(model: Model) -> dict[str, float]:
    """Scale of each quantized activation by the tensor it came from."""
    found = {}
    for node in nodes_of(model, "QuantizeLinear"):
        name = node.name.removesuffix("_QuantizeLinear")
        zero_point = int(constant_values(node.inputs[2]))
        found[name] = (float(constant_values(node.inputs[1])), zero_point)
    return found


def test_concat_shares_one_scale_that_covers_all_inputs() -> None:
    profile = profile_of(
        '[graph]\nscheme = 3\nconcat = "shared"\n[activations]\nsign = "unsigned"\nsymmetric = false\n'
        "[ops]\nConv = {}\nConcat = {}\n"
    )
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v, float[2,4,1,1] u>
        { [a] p = Conv(x, w) [b] q = Conv(x, v) [cat] c = Concat<axis=1>(p, q) [d] y = Conv(c, u) }""",
        w=np.full((2, 2, 1, 1), 0.1, np.float32),
        v=np.full((2, 2, 1, 1), 7.0, np.float32),
    )
    stats = Statistics()
    for name, low, high in (("x", -1, 1), ("p", -3, 0.5), ("q", -0.5, 9)):  # nothing is needed for c itself
        stats.tensor(name).update(np.array([low, high], np.float32))
    insert(model, context(model, profile, statistics=stats))
    check(model)
    found = scales(model)
    expected = qparams_from_range(-3, 9, U8)
    assert found["p"] == found["q"] == found["c"] == (float(expected.scale), int(expected.zero_point)) != found["x"]


def test_max_pooling_keeps_the_codes() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,2,2] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [pool] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t) [b] y = Conv(m, v) }"""
    )
    feed = qdq.feeds(model)[0]
    insert(model, context(model, feeds=[feed]))
    found = scales(model)
    assert found["t"] == found["m"]
    proto = to_proto(model)
    pooled = node_of(model, "pool").outputs[0].name
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in (pooled, "m_dequantized"))
    out = run(proto, feed)
    np.testing.assert_array_equal(out[pooled], out["m_dequantized"])  # the second pair changes nothing


# What it needs


def test_statistics_are_needed() -> None:
    model = qdq.model(NET)
    ctx = context(model)
    ctx.statistics = None
    with pytest.raises(PreconditionError, match="no activation statistics: run calibrate first"):
        insert(model, ctx)
    ctx.statistics = Statistics()
    ctx.statistics.tensor("x").update(np.ones(3, np.float32))
    with pytest.raises(PreconditionError, match=r"do not cover tensor r \(\d+ missing\)"):
        insert(model, ctx)
    assert not nodes_of(model, "QuantizeLinear")


def test_profile_of_the_pass_becomes_that_of_the_pipeline() -> None:
    model = qdq.model(NET)
    ctx = context(model, "tensorrt")
    pipeline.run(model, pipeline.parse("insert-qdq{profile=tensorrt calibration=max},fuse-activation-clips"), ctx)
    assert ctx.profile is load_profile("tensorrt") and nodes_of(model, "Relu")  # tensorrt keeps its Relus
    ctx.profile = None
    with pytest.raises(PreconditionError, match="no profile: give one as an option"):
        pipeline.run(model, (InsertQdq(),), ctx)


@pytest.mark.parametrize("method", ["max", "percentile:99", "entropy", "mse"])
def test_calibration_method(method: str) -> None:
    model = qdq.model(NET)
    feeds = qdq.feeds(model)
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, feeds=feeds), calibration=method)
    assert sqnr(expected, np.stack([run(model, f)["y"] for f in feeds])) > 12


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.7, 0.7), (-1e31, 1e31), (0.0, 3.4e38), (-1e-45, 1e-45)])
@pytest.mark.parametrize("profile", builtin_names())
def test_odd_ranges_give_models_that_run(profile: str, low: float, high: float) -> None:
    model = qdq.model(NET)
    stats = Statistics()
    for tensor in (*model.graph.inputs, *(t for n in model.graph.nodes for t in n.outputs)):
        stats.tensor(tensor.name).update(np.array([low, high], np.float32))
    insert(model, context(model, profile, statistics=stats))
    assert np.isfinite(run(model, qdq.feeds(model)[0])["y"]).all()


def test_names_that_are_taken() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x, float[1] x_scale, float[1] w_quantized) => (float[1,2,4,4] y, float[1] z)
        <float[2,2,1,1] w>
        { [x_QuantizeLinear] y = Conv(x, w) z = Add(x_scale, w_quantized) }"""
    )
    insert(model, context(model, "tensorrt"))
    check(model)
    assert {"x_scale_1", "w_quantized_1"} <= set(model.graph.tensors())
