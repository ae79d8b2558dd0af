"""Twins by name, and the figures of a comparison against what NumPy makes of the same tensors."""

import csv
import io
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.errors import ConfigError, DataError, OutputError
from onnxq.execution import inner_tensors as fetch
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.measure.compare import compare
from onnxq.measure.counterparts import counterpart_of, counterparts
from onnxq.numeric.metrics import sqnr_db
from onnxq.numeric.quantize import fake_quantize
from onnxq.plots import plot_comparison
from support.build import copy_of, qdq
from support.insertion import context, insert
from support.prove.nodes import dequantized, node_of, nodes_of
from support.runs import run

CHAIN = """g (float[N,3,6,6] x) => (float[N,5] y)
    <float[4,3,1,1] w1, float[4] b1, float[5,4,1,1] w2, float[5] b2>
    { [c1] a = Conv(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv(r, w2, b2) [pool] p = GlobalAveragePool(c)
      [flat] y = Flatten(p) }"""
RESIDUAL = """g (float[N,4,6,6] x) => (float[N,4,6,6] y)
    <float[4,4,1,1] w1, float[4,4,1,1] w2>
    { [c1] a = Conv(x, w1) [r1] r = Relu(a) [c2] c = Conv(r, w2) [add] s = Add(c, x) [r2] y = Relu(s) }"""


def data(text: str = CHAIN, count: int = 5) -> dict[str, np.ndarray]:
    source = qdq.model(text)
    return {"x": np.concatenate([f["x"][:1] for f in qdq.feeds(source, count)])}


def quantized(text: str = CHAIN, profile: str = "onnxruntime-cpu", **settings) -> tuple[Model, Model]:
    """The float model, and the same quantized."""
    source, target = qdq.model(text, 21), qdq.model(text, 21)
    insert(target, context(target, profile, feeds=[data(text)], **settings), fuse=True)
    return source, copy_of(target)


def values(source: Model, names: list[str], feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of a model as onnxruntime computes them without optimizations."""
    proto = fetch.observed_model(source, names)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return run(proto, feed)


def row(result, tensor: str):
    return next(r for r in result.rows if r.tensor == tensor)


# Twins


def pairs(source: Model, target: Model) -> dict[str, str]:
    return {name: other.tensor for name, other in counterparts(source.graph, target.graph).items()}


def test_counterparts_are_after_the_dequantize_and_survive_an_absorbed_relu():
    source, target = quantized()
    assert not nodes_of(target, "Relu")
    found = pairs(source, target)
    assert found == {
        "x": "x_dequantized",
        "a": "a",  # the Conv itself: no Q/DQ of its own
        "r": "r_dequantized",
        "c": "c_dequantized",
        "p": "p",
        "y": "y",  # nothing quantized reads it
    }
    assert counterpart_of(target.graph, "r") == "r_dequantized"
    assert counterpart_of(target.graph, "nothing") is None


def test_a_quantized_graph_output_keeps_its_name():
    source, target = quantized(RESIDUAL, "qnn")
    assert pairs(source, target)["y"] == "y"
    assert counterparts(source.graph, target.graph)["y"].quantize is not None


def test_fewer_bits_put_a_clip_between():
    source, target = quantized(activation_bits=4, first_last_bits=None)
    result = compare(source, target, data())
    assert pairs(source, target)["r"] == "r_dequantized"
    assert {r.tensor: r.bits for r in result.rows}["r"] == 4


def test_an_absorbed_relu_is_found_without_names():
    """Other tools leave the QuantizeLinear on the Conv's output: it stands on the vanished Relu's."""
    source, target = quantized()
    for node in nodes_of(target, "QuantizeLinear"):
        node.outputs[0].name = f"codes_{node.name}"
    found = counterparts(source.graph, target.graph)
    assert found["r"].tensor == "r_dequantized"
    assert found["a"].quantize is None


def test_models_of_other_tools_are_matched(tmp_path):
    """onnxruntime's own quantizer names tensors its way, and drops the Relu that its Q saturates."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from bench_support.feed_reader import FeedReader

    onnx.save(qdq.proto(CHAIN), tmp_path / "f.onnx")
    quantize_static(
        tmp_path / "f.onnx",
        tmp_path / "q.onnx",
        FeedReader({"x": data()["x"][i : i + 1]} for i in range(5)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    source, target = qdq.model(CHAIN), from_proto(onnx.load(tmp_path / "q.onnx"))
    assert not nodes_of(target, "Relu")
    found = counterparts(source.graph, target.graph)
    assert found["r"].quantize is not None
    assert found["r"].tensor == "r_DequantizeLinear_Output"
    result = compare(source, target, data())
    assert row(result, "r").sqnr_db > 25
    assert row(result, "r").op == "Conv+Relu"
    assert row(result, "r").weight_sqnr_db > 30


# Figures


def test_rows_hold_what_numpy_finds():
    source, target = quantized()
    feed = data()
    result = compare(source, target, feed)
    found = {r.tensor: r for r in result.rows}
    names = {n: t for n, t in pairs(source, target).items() if n not in ("x", "a")}
    expected, actual = values(source, list(names), feed), values(target, list(names.values()), feed)
    for name, other in names.items():
        assert found[name].sqnr_db == pytest.approx(sqnr_db(expected[name], actual[other]), abs=1e-3)
        assert found[name].max_abs_error == pytest.approx(np.abs(expected[name] - actual[other]).max(), rel=1e-4)
        cosine = float((expected[name] * actual[other]).sum()) / float(
            np.linalg.norm(expected[name]) * np.linalg.norm(actual[other])
        )
        assert found[name].cosine == pytest.approx(cosine, abs=1e-6)
    assert "a" not in found  # inside the layer: its Relu is compared
    assert (found["x"].op, found["r"].op, found["c"].op) == ("input", "Conv+Relu", "Conv")
    assert (found["r"].node, found["r"].bits, found["r"].weight_bits) == ("c1", 8, 8)
    assert result.samples == 5


def test_rows_come_worst_first_and_the_csv_holds_them_all():
    result = compare(*quantized(weight_bits=3, first_last_bits=None), data())
    figures = [r.sqnr_db for r in result.rows]
    assert figures == sorted(figures)
    read = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [r["tensor"] for r in read] == [r.tensor for r in result.rows]
    assert [float(r["sqnr_db"]) for r in read] == figures


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_and_small_groups_change_nothing(batch_size, monkeypatch):
    source, target = quantized()
    whole = compare(source, target, data(), batch_size=5)
    monkeypatch.setattr(fetch, "FETCH_BUDGET", 1)  # every tensor in a run of its own
    monkeypatch.setattr(fetch, "PROBE", 1)
    parts = compare(source, target, data(), batch_size=batch_size)
    for a in whole.rows:
        assert row(parts, a.tensor).sqnr_db == pytest.approx(a.sqnr_db, abs=1e-3)


def test_groups_stay_under_the_budget(monkeypatch):
    monkeypatch.setattr(fetch, "FETCH_BUDGET", 1000)
    fetcher = fetch.Fetcher(None, list("abcde"))
    fetcher.bytes = {"a": 300, "b": 300, "c": 600, "d": 100, "e": 5000}
    assert fetcher.groups(1) == [["a", "b"], ["c", "d"], ["e"]]
    assert fetcher.groups(3) == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_weights_are_compared_with_the_float_ones():
    source, target = quantized(weight_bits=4, first_last_bits=None)
    result = compare(source, target, data())
    weight = node_of(source, "c2").inputs[1].values
    assert row(result, "c").weight_bits == 4
    assert row(result, "c").weight_sqnr_db == pytest.approx(sqnr_db(weight, dequantized(target, "c2")), abs=1e-3)


def test_a_folded_batchnorm_is_part_of_the_weight_and_its_input_is_skipped():
    from onnxq import pipeline

    text = """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float[4,3,1,1] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
        { [c] a = Conv(x, w) [bn] y = BatchNormalization(a, gamma, beta, mean, var) }"""
    rng = np.random.default_rng(0)
    scale, variance = rng.uniform(1, 3, 4).astype(np.float32), rng.uniform(1, 9, 4).astype(np.float32)
    source = qdq.model(text, opset=15, gamma=scale, var=variance)
    target = qdq.model(text, opset=15, gamma=scale, var=variance)
    ctx = context(target, feeds=[data(text)])
    pipeline.run(target, pipeline.parse("fold-batchnorm,insert-qdq{calibration=max}"), ctx)
    result = compare(source, target, data(text))
    assert result.skipped == ("a",)
    found = row(result, "y")
    assert (found.node, found.op) == ("c", "Conv")
    folded = node_of(source, "c").inputs[1].values * (scale / np.sqrt(variance + 1e-5)).reshape(-1, 1, 1, 1)
    assert found.weight_sqnr_db == pytest.approx(sqnr_db(folded, dequantized(target, "c")), abs=1e-2)
    assert found.sqnr_db > 25


def test_isolated_feeds_every_layer_the_float_values():
    """The second convolution alone: its weight and bias quantized, its input the float model's, quantized once."""
    source = qdq.model(CHAIN)
    target = qdq.model(CHAIN)
    ctx = context(target, feeds=[data()])
    insert(target, ctx, fuse=True)
    points = ctx.placement.activation_qparams
    result = compare(source, target, data(), isolated=True)
    floats = values(source, ["r", "c"], data())
    weight, bias = dequantized(target, "c2", 1), dequantized(target, "c2", 2)
    seen = fake_quantize(floats["r"], points["r"]).astype(np.float64)
    made = np.einsum("nihw,oi->nohw", seen, weight[:, :, 0, 0].astype(np.float64)) + bias.reshape(1, -1, 1, 1)
    alone = fake_quantize(made.astype(np.float32), points["c"])
    assert row(result, "c").isolated_sqnr_db == pytest.approx(sqnr_db(floats["c"], alone), abs=0.05)
    first = row(result, "r")
    assert first.isolated_sqnr_db == pytest.approx(first.sqnr_db, abs=1e-6)  # nothing is before it
    assert row(result, "x").isolated_sqnr_db is None
    assert row(result, "c").isolated_sqnr_db > row(result, "c").sqnr_db


def test_isolated_wide_residual():
    """Under graph scheme 2 the residual layer has no Q of its own: its row is the error of the layer as well."""
    result = compare(*quantized(RESIDUAL, "tensorrt"), data(RESIDUAL), isolated=True)
    assert row(result, "c").bits is None
    assert row(result, "c").isolated_sqnr_db >= row(result, "c").sqnr_db


def test_equal_models_have_no_error():
    result = compare(qdq.model(CHAIN), qdq.model(CHAIN), data())
    assert {r.sqnr_db for r in result.rows} == {math.inf}
    assert result.skipped == ()


# Refusals


def test_other_networks_are_refused():
    text = "g (float[N,3,6,6] x) => (float[N,3,6,6] z) <float[3,3,1,1] w> { [c9] z = Conv(x, w) }"
    with pytest.raises(ConfigError, match="no activation in common"):
        compare(qdq.model(CHAIN), qdq.model(text), data())
    with pytest.raises(ConfigError, match="same inputs"):
        compare(qdq.model(CHAIN), qdq.model(text.replace(" x)", " image)").replace("(x,", "(image,")), data())
    with pytest.raises(ConfigError, match=r"tensor c is \[1, 5, 6, 6\].*\[1, 7, 6, 6\]"):
        compare(qdq.model(CHAIN), qdq.model(CHAIN.replace("5", "7")), data())


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="no samples"):
        compare(qdq.model(CHAIN), qdq.model(CHAIN), iter([]))


# Plots


@pytest.mark.parametrize(("name", "start"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF")])
def test_plots_are_written(tmp_path, name, start):
    result = compare(*quantized(), data(), isolated=True)
    plot_comparison(result, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_plot_of_equal_models_is_drawn_too(tmp_path):
    plot_comparison(compare(qdq.model(CHAIN), qdq.model(CHAIN), data()), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_plot_refusals(tmp_path):
    result = compare(qdq.model(CHAIN), qdq.model(CHAIN), data())
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf"):
        plot_comparison(result, tmp_path / "p.bmp")
    with pytest.raises(OutputError, match="does not exist"):
        plot_comparison(result, tmp_path / "missing" / "p.png")


def test_int4_weights_are_read():
    codes = numpy_helper.to_array
    source, target = quantized(weight_bits=4, first_last_bits=None)
    stored = [i for i in to_proto(target).graph.initializer if i.name == "w2_quantized"]
    assert codes(stored[0]).dtype.name == "int4"
    assert row(compare(source, target, data()), "c").weight_bits == 4
