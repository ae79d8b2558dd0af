"""Where the time goes: what is counted for each node, not how long it takes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.errors import ModelError
from onnxq.execution.layer_times import LayerTime, LayerTimes, layer_times
from support.build import qdq

CONVS = """g (float[N,4,8,8] x) => (float[N,6] y)
    <float[16,4,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16] b2, float[16,8,1,1] w3, float[6,16] w4,
     float[6] b4>
    { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [r1] b = Relu(a)
      [dw] c = Conv<group=16, pads=[1,1,1,1], strides=[2,2]>(b, w2, b2)
      [grouped] d = Conv<group=2>(c, w3) [p] e = GlobalAveragePool(d) [f] f = Flatten(e)
      [fc] y = Gemm<transB=1>(f, w4, b4) }"""
CONV_MACS = [2 * 16 * 64 * 4 * 9, 2 * 16 * 16 * 9, 2 * 16 * 16 * 8, 2 * 6 * 16]


def products(times: LayerTimes) -> list[LayerTime]:
    """The layers that multiply matrices. The optimizer gives those it fuses other names and operators."""
    return [layer for layer in times.layers if layer.macs != 0]


def profile(model: onnx.ModelProto, threads: int = 1, **feeds: np.ndarray) -> LayerTimes:
    return layer_times(model, feeds, threads=threads, seconds=0.01)


def test_convolutions_of_a_float_model() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    found = profile(qdq.proto(CONVS), x=x)
    assert [layer.macs for layer in products(found)] == CONV_MACS
    # x, w1 and b1 are read, 2×16×8×8 values written
    assert products(found)[0].bytes_moved == 4 * (2 * 4 * 64 + 16 * 4 * 9 + 16 + 2 * 16 * 64)
    assert {"GlobalAveragePool", "Gemm"} <= {layer.op for layer in found.layers}


def test_convolutions_of_its_int8_version_whose_weights_are_packed_away() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    quantized = onnxq.quantize(qdq.proto(CONVS), {"x": x}, profile="onnxruntime-cpu").model
    found = profile(quantized, x=x)
    assert [layer.macs for layer in products(found)] == CONV_MACS
    assert {layer.op for layer in products(found)} == {"QLinearConv", "QGemm"}
    # bytes and int8 now: data, weights, int32 biases, and a few scales and zero points
    assert 0 < products(found)[0].bytes_moved - (2 * 4 * 64 + 16 * 4 * 9 + 4 * 16 + 2 * 16 * 64) < 200


@pytest.mark.parametrize(
    ("text", "shapes", "macs"),
    [
        ("g (float[3,5] x) => (float[3,7] y) <float[5,7] w> { [m] y = MatMul(x, w) }", {"x": (3, 5)}, 105),
        (
            "g (float[5,3] x) => (float[3,7] y) <float[7,5] w> { [m] y = Gemm<transA=1, transB=1>(x, w) }",
            {"x": (5, 3)},
            105,
        ),
        (
            "g (float[4,1,3,5] x, float[2,5,7] z) => (float[4,2,3,7] y) { [m] y = MatMul(x, z) }",
            {"x": (4, 1, 3, 5), "z": (2, 5, 7)},
            8 * 105,
        ),
        ("g (float[5] x) => (float[7] y) <float[5,7] w> { [m] y = MatMul(x, w) }", {"x": (5,)}, 35),
        (
            "g (float[2,3,8] x, float[4,3,3] z) => (float[2,4,6] y) { [m] y = Conv(x, z) }",
            {"x": (2, 3, 8), "z": (4, 3, 3)},
            2 * 4 * 6 * 9,
        ),
    ],
    ids=["matmul", "gemm with both transposed", "batched and broadcast", "vector", "weight given at run time"],
)
def test_products(text: str, shapes: dict[str, tuple[int, ...]], macs: int) -> None:
    feeds = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    assert [layer.macs for layer in profile(qdq.proto(text), **feeds).layers if layer.macs] == [macs]


def test_what_runs_inside_a_loop_is_the_loops() -> None:
    text = """g (float[4,4] x) => (float[4,4] y) <float[4,4] w, int64 times = {3}, bool go = {1}>
    { [first] a = MatMul(x, w)
      [repeat] b = Loop (times, go, a) <
        body = step (int64 i, bool c, float[4,4] p) => (bool d, float[4,4] q)
        { d = Identity(c) [inner] r = MatMul(p, w) q = Tanh(r) }>
      [last] y = Relu(b) }"""
    found = profile(qdq.proto(text), x=np.ones((4, 4), np.float32))
    assert [layer.node for layer in found.layers] == ["first", "repeat", "last"]
    assert found.layers[1].macs == 0


def test_shares_and_ceilings() -> None:
    x = np.ones((2, 4, 8, 8), np.float32)
    found = profile(qdq.proto(CONVS), x=x)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert found.ceiling == "its own fastest layer"
    assert found.ceiling_gops == max(layer.gops for layer in found.layers)
    fastest = max(found.layers, key=lambda layer: layer.gops)
    assert fastest.lost_ms == pytest.approx(0.0, abs=1e-9)
    assert found.runs >= 5
    given = layer_times(qdq.proto(CONVS), {"x": x}, threads=1, seconds=0.01, ceiling_gops=1.0)
    assert (given.ceiling_gops, given.ceiling) == (1.0, "as given")
    for layer in given.layers:
        assert layer.macs is not None
        assert layer.lost_ms == pytest.approx(layer.ms - 2e-6 * layer.macs)


def test_the_worst_lose_most_not_those_that_take_longest() -> None:
    def layer(node: str, op: str, ms: float, macs: int) -> LayerTime:
        return LayerTime(node, op, ms, ms / 10.0, macs, 1000, ms - 2e-6 * macs / 100.0)

    layers = (
        layer("large", "Conv", 5.0, 240_000_000),  # 96 GOP/s: near the ceiling of 100
        layer("small", "Conv", 1.0, 1_000_000),
        layer("pool", "MaxPool", 0.5, 0),
        layer("add", "Add", 0.3, 0),
    )
    found = LayerTimes(layers, 7.0, 100.0, "as given", 5)
    assert [x.node for x in found.worst()] == ["small", "pool", "add"]
    assert [x.node for x in found.worst(1)] == ["small"]
    ops = found.by_op()
    assert list(ops) == ["Conv", "MaxPool", "Add"]
    assert ops["Conv"] == (2, 6.0, pytest.approx(0.6))
    assert layers[0].gops == pytest.approx(96.0)
    assert layers[0].gbytes == pytest.approx(2e-4)
    assert math.isclose(layers[2].gops, 0.0)


def test_it_comes_with_a_benchmark() -> None:
    found = onnxq.bench(qdq.proto(CONVS), batch_size=2, threads=1, repeats=2, seconds=0.01, per_layer=True)
    assert found.layers is not None
    assert [layer.macs for layer in products(found.layers)] == CONV_MACS
    assert found.to_dict()["layers"]["layers"][0]["op"]


def test_a_model_that_onnxruntime_refuses() -> None:
    with pytest.raises(ModelError, match="onnxruntime rejects the model"):
        profile(
            qdq.proto("g (float[N,6] x) => (float[N,6] y) { y = com.onnxq.Nope(x) }"), x=np.ones((1, 6), np.float32)
        )
