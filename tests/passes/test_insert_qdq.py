"""insert-qdq: that it computes what the arithmetic says, that it does so once, and what it needs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq import pipeline
from onnxq.calibrate.statistics import Statistics
from onnxq.errors import PreconditionError
from onnxq.graph.match import constant_values
from onnxq.graph.model import to_proto
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from onnxq.passes.insert_qdq import InsertQdq
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import qdq
from support.insertion import context, insert
from support.prove.nodes import node_of, nodes_of, reasons
from support.prove.values import sqnr
from support.runs import run
from support.small_net import NET, check

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
