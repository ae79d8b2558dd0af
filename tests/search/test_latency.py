"""Latencies: what is measured and saved, and what a search makes of them. No test depends on how fast anything is."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.cost.latency_table import Latencies, LayerLatency, load_latencies
from onnxq.cost.prepared import prepare
from onnxq.errors import ConfigError, ModelError
from onnxq.execution import benchmark, library
from onnxq.execution.competitors import open_competitor
from onnxq.graph import model as graph_model
from onnxq.graph.model import load
from onnxq.search import latency
from onnxq.search.choose import search_bits
from onnxq.search.latency import measure_latency
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from support.build import floating

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning"),
    pytest.mark.skipif(not library.has_library(), reason="no kernel library"),
]
TEXT = """g (float[N,3,8,8] x) => (y)
<float[8,3,3,3] w0, float[8,8,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[8,8,3,3] w4, float[8,5] w5> {
[stem] a0 = Conv<pads=[1,1,1,1]>(x, w0)
[relu0] a = Relu(a0)
[conv1] b0 = Conv<pads=[1,1,1,1]>(a, w1)
[relu1] b = Relu(b0)
[conv2] c = Conv<pads=[1,1,1,1]>(b, w2)
[sum] d0 = Add(c, a)
[relu2] d = Relu(d0)
[conv3] e0 = Conv<pads=[1,1,1,1]>(d, w3)
[relu3] e = Relu(e0)
[conv4] h = Conv<pads=[1,1,1,1]>(e, w4)
[pool] p = GlobalAveragePool(h)
[flat] f = Flatten(p)
[head] y = Gemm(f, w5)
}"""


def proto():
    return floating.proto(TEXT, 17, 8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Latencies, object]:
    folder = tmp_path_factory.mktemp("cache")
    return measure_latency(proto(), (3, 4, 8), threads=1, seconds=0.002, cache=folder), folder


def test_every_layer_is_measured_as_the_operator_it_becomes(measured):
    found, _ = measured
    assert {e.node: e.operator for e in found.layers} == {
        "stem": "Conv", "conv1": "Conv", "conv2": "ConvAdd", "conv3": "Conv", "conv4": "Conv", "head": "Gemm",
    }  # fmt: skip
    for e in found.layers:
        assert set(e.seconds) == {(3, 8), (4, 8), (8, 8)}
        assert e.seconds[3, 8] == e.seconds[4, 8]  # both INT4
        assert min(e.seconds.values()) >= 0
    assert {e.node for e in found.layers if not e.measured} == {"conv3"}  # as conv1 is
    assert found.machine["isa"] == library.kernel_isa()
    assert found.inputs == {"x": "1x3x8x8"}


def test_the_prediction_at_8_bits_is_what_was_measured(measured):
    found, _ = measured
    assert found.predict({e.node: 8 for e in found.layers}) == pytest.approx(found.whole[8, 8])
    mixed = {e.node: 8 for e in found.layers} | {"conv1": 4}
    conv1 = next(e for e in found.layers if e.node == "conv1")
    assert found.predict(mixed) - found.whole[8, 8] == pytest.approx(conv1.seconds[4, 8] - conv1.seconds[8, 8])


def test_what_was_measured_is_not_measured_again(measured, monkeypatch):
    first, folder = measured
    again = measure_latency(proto(), (3, 4, 8), threads=1, seconds=0.002, cache=folder)
    assert not any(e.measured for e in again.layers)
    assert [e.seconds for e in again.layers] == [e.seconds for e in first.layers]
    monkeypatch.setattr(benchmark, "cpu_name", lambda: "another")
    other = measure_latency(proto(), (8,), threads=1, seconds=0.002, cache=folder)
    assert any(e.measured for e in other.layers)


def test_a_damaged_measurement_is_taken_again(measured):
    first, folder = measured
    for file in folder.glob("*.json"):
        file.write_text("{")
    again = measure_latency(proto(), (3, 4, 8), threads=1, seconds=0.002, cache=folder)
    assert [e.measured for e in again.layers] == [e.measured for e in first.layers]


def test_an_interrupted_run_goes_on_with_what_is_there(tmp_path, monkeypatch):
    real = latency._measured
    seen: list[str] = []

    def stop(layer, *args):
        if layer == "conv2" and not seen:
            seen.append(layer)
            raise KeyboardInterrupt
        return real(layer, *args)

    monkeypatch.setattr(latency, "_measured", stop)
    with pytest.raises(Exception, match="2 of 6 layers are measured and saved"):
        measure_latency(proto(), (4, 8), threads=1, seconds=0.002, cache=tmp_path)
    again = measure_latency(proto(), (4, 8), threads=1, seconds=0.002, cache=tmp_path)
    assert [e.measured for e in again.layers] == [False, False, True, False, True, True]


def test_the_file_and_a_search_under_a_latency_limit(tmp_path):
    prepared = prepare(proto(), "onnxq")
    names = prepared.layer_names()
    path = tmp_path / "lat.json"
    made = Latencies(
        prepared.model.sha256, "m", "onnxq", (8, 4),
        tuple(LayerLatency(n, "Conv", {(8, 8): 2e-3, (4, 8): 1e-3}, {(8, 8): 0.0, (4, 8): 0.0}, True) for n in names),
        {(8, 8): 14e-3, (4, 8): 8e-3}, 2e-3, 1e-6, {"cpu": "c"},
    )  # fmt: skip
    made.save(path)
    assert load_latencies(path) == made
    known = Sensitivity(
        prepared.model.sha256, "m", "test",
        tuple(LayerSensitivity(n, "weights", {4: float(i), 8: 0.0}) for i, n in enumerate(names)),
    )  # fmt: skip
    found = search_bits(proto(), "ilp", profile="onnxq", sensitivity=known, latency=path, limits={"latency": "12ms"})
    assert [c.weight_bits for c in found.layers] == [4, 4, 8, 8, 8, 8]
    assert (
        found.predicted["latency"]
        == pytest.approx(12e-3)
        == made.predict({c.node: c.weight_bits for c in found.layers})
    )
    with pytest.raises(ConfigError, match=r"--max-latency 50% .*the least is 8.000 ms \(57.1 % of int8\)"):
        search_bits(proto(), "ilp", profile="onnxq", sensitivity=known, latency=path, limits={"latency": "50%"})
    with pytest.raises(ConfigError, match="measured at 4, 8 bits, not at 5"):
        search_bits(proto(), "ilp", profile="onnxq", sensitivity=known, latency=path, bits=(5, 8))
    other = dataclasses.replace(made, model_sha256="0" * 64)
    with pytest.raises(ConfigError, match="latencies are for another model"):
        search_bits(proto(), "ilp", profile="onnxq", sensitivity=known, latency=other)


def test_times_depend_on_the_width_of_activations_too(tmp_path):
    prepared = prepare(proto(), "onnxq")
    names = prepared.layer_names()
    seconds = {(8, 8): 4e-3, (8, 4): 2e-3, (4, 8): 3e-3, (4, 4): 1e-3}
    path = tmp_path / "lat.json"
    made = Latencies(
        prepared.model.sha256, "m", "onnxq", (8, 4),
        tuple(LayerLatency(n, "Conv", seconds, dict.fromkeys(seconds, 0.0), True) for n in names),
        dict.fromkeys(seconds, 1.0), 0.0, 1e-6, {"cpu": "c"}, {}, (8, 4),
    )  # fmt: skip
    made.save(path)
    assert load_latencies(path) == made
    weights = tuple(LayerSensitivity(n, "weights", {4: 1.0, 8: 0.0}) for n in names)
    points = {p.tensor.name: p for p in prepared.placement.points}
    activations = tuple(LayerSensitivity(name, "activations", {4: 0.1, 8: 0.0}, tensors=(name,)) for name in points)
    known = Sensitivity(prepared.model.sha256, "m", "test", (*weights, *activations))
    how = {"profile": "onnxq", "sensitivity": known, "latency": path, "bits": (4, 8), "activation_bits": (4, 8)}
    found = search_bits(proto(), "ilp", **how, limits={"latency": f"{2 * len(names)}ms"})
    assert {c.weight_bits for c in found.layers} == {8}  # narrower activations are enough, and cost less
    assert {c.activation_bits for c in found.layers} == {4}
    assert found.predicted["latency"] == pytest.approx(2e-3 * len(names))
    assert found.predicted["latency"] == made.predict(dict.fromkeys(names, 8), dict.fromkeys(names, 4))
    assert all(c.seconds == {8: 2e-3, 4: 1e-3} for c in found.layers)
    with pytest.raises(ConfigError, match="with activations of 4, 8 bits, not of 6"):
        search_bits(proto(), "ilp", **(how | {"activation_bits": (6, 8)}))


def test_a_model_is_measured_at_every_pair_and_equal_operators_once(tmp_path):
    how = {"threads": 1, "seconds": 0.002, "cache": tmp_path}
    found = measure_latency(proto(), (4, 8), activation_bits=(4,), **how)
    pairs = {(4, 4), (4, 8), (8, 4), (8, 8)}
    assert set(found.whole) == pairs
    assert all(set(e.seconds) == pairs for e in found.layers)
    alike = [e for e in found.layers if e.node in ("conv1", "conv3", "head")]  # a byte each, not in a wide residual
    assert all(e.seconds[w, 4] == e.seconds[w, 8] for e in alike for w in (4, 8))
    assert found.predict({e.node: 8 for e in found.layers}) == pytest.approx(found.whole[8, 8])


def test_files_of_the_old_format_have_activations_of_8_bits(tmp_path):
    path = tmp_path / "lat.json"
    layer = {"node": "a", "operator": "Conv", "seconds": {"4": 1.0, "8": 2.0}, "error": {"4": 0.0, "8": 0.0}}
    table = {"format": "onnxq-latency-1", "model_sha256": "0", "model_name": "m", "profile": "onnxq", "bits": [8, 4]}
    table |= {"layers": [layer | {"measured": True}], "whole": {"8": 3.0, "4": 2.0}, "overhead": 1.0, "call": 0.0}
    path.write_text(json.dumps(table | {"machine": {}, "inputs": {}}))
    found = load_latencies(path)
    assert found.activation_bits == (8,)
    assert found.layers[0].seconds == {(4, 8): 1.0, (8, 8): 2.0}


@pytest.mark.parametrize("form", ["integer-only", "qdq", "another profile"])
def test_a_quantized_model_is_measured_at_the_widths_that_it_has(tmp_path, form):
    profile = "tensorrt" if form == "another profile" else "onnxq"
    widths = {} if form == "another profile" else {"overrides": {"conv1": {"weight_bits": 4}}}
    model = onnxq.quantize(proto(), random_data=2, profile=profile, qdq=form == "qdq", **widths).model
    before = model.SerializeToString()
    found = measure_latency(model, threads=1, seconds=0.002, cache=tmp_path)
    assert found.fixed and model.SerializeToString() == before
    layers = {e.node: e for e in found.layers}
    assert {n: e.operator for n, e in layers.items()} == {
        "stem": "Conv", "conv1": "Conv", "conv2": "ConvAdd", "conv3": "Conv", "conv4": "Conv", "head": "Gemm",
    }  # fmt: skip
    narrow = (8, 8) if form == "another profile" else (4, 8)
    assert [list(layers[n].seconds) for n in ("stem", "conv1", "conv3")] == [[(8, 8)], [narrow], [(8, 8)]]
    assert all(t > 0 for e in found.layers for t in (*e.seconds.values(), *found.whole.values()))
    assert len(found.whole) == 1
    path = tmp_path / "lat.json"
    found.save(path)
    with pytest.raises(ConfigError, match="of a quantized model, at the widths that it has"):
        load_latencies(path)


def test_a_quantized_model_without_layers_in_integers(tmp_path):
    text = """g (float[1,4] x) => (y) <float s = {0.1}, uint8 z = {7}, float[4,3] w> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = Sigmoid(d) y = MatMul(r, w) }"""
    with pytest.raises(ModelError, match="none of its layers is in integers; `onnxq bench --per-layer` measures it"):
        measure_latency(floating.proto(text, 17, 8), cache=tmp_path)


@pytest.mark.parametrize("form", ["float", "qdq", "integer-only"])
def test_weights_left_in_files_are_found_from_any_folder(tmp_path, form, monkeypatch):
    monkeypatch.setattr(graph_model, "INLINE_LIMIT", 0)
    monkeypatch.setattr(graph_model, "SMALL_BYTES", 0)
    made = (
        proto() if form == "float" else onnxq.quantize(proto(), random_data=1, profile="onnxq", qdq=form == "qdq").model
    )
    (tmp_path / "there").mkdir()
    onnx.save(made, tmp_path / "there" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    model = load(tmp_path / "there" / "m.onnx")
    assert model.external
    found = measure_latency(model, threads=1, seconds=0.002, cache=tmp_path / "cache")
    assert all(e.operator for e in found.layers)
    model = load(tmp_path / "there" / "m.onnx")
    times = benchmark.bench(model, repeats=1, seconds=0.01, per_layer=True)
    assert times.layers is not None and times.layers.layers
    if form != "integer-only" and importlib.util.find_spec("openvino"):
        feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
        open_competitor(load(tmp_path / "there" / "m.onnx"), feeds, openvino=True).run()


def test_mistakes(tmp_path, measured):
    with pytest.raises(ConfigError, match="has no integer-only form"):
        measure_latency(proto(), profile="tensorrt")
    found, _ = measured
    good = json.loads(found.to_json())
    path = tmp_path / "lat.json"
    for broken, told in (
        ("{", "not a latency file"),
        (json.dumps({"format": "x"}), "not a latency file that onnxq reads"),
        (json.dumps({k: v for k, v in good.items() if k != "whole"}), "'whole' is missing"),
        (json.dumps(good | {"bits": [8, 2]}), "a layer lacks a width"),
    ):
        path.write_text(broken)
        with pytest.raises(ConfigError, match=re.escape(told)):
            load_latencies(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_latencies(tmp_path / "none.json")
