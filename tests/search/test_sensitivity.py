"""Sensitivities by every method against brute force, the file they are kept in, and what is refused."""

from __future__ import annotations

import json
import signal
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxq import demo
from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.cost.prepared import Prepared, prepare
from onnxq.errors import ConfigError, DataError, InterruptedRun, ModelError
from onnxq.execution.inner_tensors import observed_model
from onnxq.graph.model import load, to_proto
from onnxq.numeric.metrics import ErrorSums
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from onnxq.search import measurement
from onnxq.search.hessian import HutchinsonOptions
from onnxq.search.measure import measure_sensitivity
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity, load_sensitivity
from support.build import floating

SAMPLES = 16
NET = """g (float[N,2,6,6] x) => (float[N,4] y)
<float[4,2,3,3] w1, float[4] b1, float[4,1,3,3] w2, float[4] b2, float[8,4] w3, float[4] b3> {
    [c1] a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)   ar = Relu(a)
    [c2] d = Conv<pads=[1,1,1,1], group=4>(ar, w2, b2)        dr = Relu(d)
    [join] s = Concat<axis=1>(dr, ar)   p = GlobalAveragePool(s)  f = Flatten(p)
    [fc] y = Gemm(f, w3, b3)
}"""
FAST = HutchinsonOptions(rounds=3)


def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {"x": rng.normal(0, 1, (SAMPLES, 2, 6, 6)).astype(np.float32), "labels": rng.integers(0, 4, SAMPLES)}


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray], *names: str) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {k: v for k, v in feed.items() if k != "labels"})


def with_weight(ready: Prepared, node: str, bits: int) -> onnx.ModelProto:
    """The whole model with one layer's weight quantized."""
    layer = next(x for x in ready.layers if x.node.name == node)
    proto = to_proto(ready.model)
    for tensor in proto.graph.initializer:
        if tensor.name == layer.weight.name:
            w = onnx.numpy_helper.to_array(tensor)
            axis = 1 if node == "fc" else 0
            q = weight_qparams(w, ready.profile.weights.format(bits), axis, "max" if bits == 8 else "mse")
            tensor.CopyFrom(onnx.numpy_helper.from_array(fake_quantize(w, q), tensor.name))
    return proto


def kl(z: np.ndarray, float_z: np.ndarray) -> float:
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (float_z.astype(float), z.astype(float)))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def cross_entropy(z: np.ndarray, labels: np.ndarray) -> float:
    z = z.astype(float)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


def test_one_at_a_time_is_the_whole_model_with_that_layer_quantized():
    ready, data = prepare(floating.proto(NET), "onnxruntime-cpu"), samples()
    found = measure_sensitivity(floating.proto(NET), data, method="one-at-a-time", bits=[8, 4, 2])
    on_labels = measure_sensitivity(floating.proto(NET), data, method="one-at-a-time", bits=[2], labels=True)
    z = run(to_proto(ready.model), data)[0]
    assert [e.node for e in found.layers] == ["c1", "c2", "fc"]
    for entry, labelled in zip(found.layers, on_labels.layers, strict=True):
        assert list(entry.bits) == [8, 4, 2]
        for bits in entry.bits:
            changed = run(with_weight(ready, entry.node, bits), data)[0]
            sums = ErrorSums()
            sums.add(z, changed)
            lost = (z.argmax(1) == data["labels"]).sum() - (changed.argmax(1) == data["labels"]).sum()
            assert entry.bits[bits] == pytest.approx(kl(changed, z), rel=1e-3, abs=1e-9)
            assert entry.extra["output_error"][str(bits)] == pytest.approx(sums.err_sq / sums.ref_sq, rel=1e-3)
            assert entry.extra["accuracy"][str(bits)] == lost / SAMPLES
        increase = cross_entropy(changed, data["labels"]) - cross_entropy(z, data["labels"])
        assert labelled.bits[2] == pytest.approx(increase, rel=1e-3)


def test_accuracy_without_labels_is_the_share_of_top_classes_that_moved():
    ready, data = prepare(floating.proto(NET), "onnxruntime-cpu"), {"x": samples()["x"]}
    found = measure_sensitivity(floating.proto(NET), data, method="one-at-a-time", bits=[2], metric="accuracy")
    z = run(to_proto(ready.model), data)[0].argmax(1)
    moved = [np.mean(run(with_weight(ready, e.node, 2), data)[0].argmax(1) != z) for e in found.layers]
    assert [e.bits[2] for e in found.layers] == moved
    assert max(moved) > 0


def test_output_error_is_that_of_the_layer_itself():
    ready, data = prepare(floating.proto(NET), "onnxruntime-cpu"), samples()
    found = measure_sensitivity(floating.proto(NET), data, method="output-error", bits=[3])
    for entry, tensor, before in zip(found.layers, ("a", "d", "y"), ("x", "ar", "f"), strict=True):
        inner = [*run(observed_model(ready.model, [before, tensor]), data, before, tensor)]
        # Alone: the layer's own input is the float one, whatever was quantized before it.
        text = to_proto(load(with_weight(ready, entry.node, 3)))
        changed = run(observed_model(load(text), [before, tensor]), data, before, tensor)
        assert np.array_equal(inner[0], changed[0])
        sums = ErrorSums()
        sums.add(inner[1], changed[1])
        assert entry.bits[3] == pytest.approx(sums.err_sq / sums.ref_sq, rel=1e-4)


def test_weight_error_needs_no_data():
    found = measure_sensitivity(floating.proto(NET), method="weight-error", bits=[8, 4, 2])
    w = next(onnx.numpy_helper.to_array(t) for t in floating.proto(NET).graph.initializer if t.name == "w1")
    assert [e.node for e in found.layers] == ["c1", "c2", "fc"]
    for bits, value in found.layers[0].bits.items():
        ready = prepare(floating.proto(NET), "onnxruntime-cpu")
        q = weight_qparams(w, ready.profile.weights.format(bits), 0, "max" if bits == 8 else "mse")
        error = float(((fake_quantize(w, q) - w).astype(float) ** 2).sum())
        assert value == pytest.approx(error / float((w.astype(float) ** 2).sum()), rel=1e-6)
        assert found.layers[0].extra["squared_error"][str(bits)] == pytest.approx(error, rel=1e-6)


def test_hessian_is_half_the_mean_trace_times_the_squared_error():
    data = samples()
    found = measure_sensitivity(floating.proto(NET), data, bits=[4, 2], options=FAST)
    errors = measure_sensitivity(floating.proto(NET), method="weight-error", bits=[4, 2])
    for entry, other in zip(found.layers, errors.layers, strict=True):
        assert entry.extra["squared_error"] == other.extra["squared_error"]
        assert entry.extra["mean_trace"] == entry.extra["trace"] / entry.extra["parameters"]
        for bits in (4, 2):
            omega = entry.extra["mean_trace"] * entry.extra["squared_error"][str(bits)]  # HAWQ-V2, equation 2.11
            assert entry.extra["omega"][str(bits)] == pytest.approx(omega)
            assert entry.bits[bits] == pytest.approx(omega / 2)
            share = entry.extra["trace_standard_error"] / entry.extra["trace"]
            assert entry.standard_error[bits] == pytest.approx(entry.bits[bits] * share)
    assert found.created["samples"] == SAMPLES
    assert found.created["data"]["kind"] == "arrays"


def test_it_predicts_what_one_at_a_time_measures_where_the_error_is_small():
    data = demo.calibration_data()
    path = demo.model_path()
    how: dict[str, Any] = {"bits": [6], "limit": 64, "batch_size": 8}
    predicted = measure_sensitivity(path, data, options=HutchinsonOptions(tolerance=0.1, rounds=16, budget=None), **how)
    measured = measure_sensitivity(path, data, method="one-at-a-time", **how)
    ratios = [p.bits[6] / m.bits[6] for p, m in zip(predicted.layers, measured.layers, strict=True)]
    assert 0.3 < np.median(ratios) < 3
    assert np.corrcoef(*(np.log([e.bits[6] for e in s.layers]) for s in (predicted, measured)))[0, 1] > 0.8


def test_activations_one_at_a_time():
    model, data = floating.proto(NET), samples()
    ready = prepare(floating.proto(NET), "onnxq")
    found = measure_sensitivity(model, data, method="one-at-a-time", profile="onnxq", bits=[8], activation_bits=[8, 4])
    entries = found.of("activations")
    assert {t for e in entries for t in e.tensors} == {p.tensor.name for p in ready.placement.points}
    first = next(e for e in entries if "x" in e.tensors)
    assert (first.node, first.readers) == ("c1", ("c1",))
    stats = TensorStatistics()
    stats.update(data["x"])
    z = run(to_proto(ready.model), data)[0]
    for bits in (8, 4):
        fmt = ready.profile.activations.format(bits, False)
        q = qparams_from_range(*choose_range(stats, "mse", fmt), fmt)
        changed = run(to_proto(ready.model), {"x": fake_quantize(data["x"], q)})[0]
        assert first.bits[bits] == pytest.approx(kl(changed, z), rel=1e-3)
    skip = next(e for e in entries if "ar" in e.tensors)
    assert set(skip.readers) == {"c2", "join"}
    assert all(e.bits[4] > e.bits[8] > 0 for e in entries)


def test_output_error_of_activations_is_their_own():
    data = samples()
    found = measure_sensitivity(
        floating.proto(NET), data, method="output-error", profile="onnxq", bits=[8], activation_bits=[4]
    )
    ready = prepare(floating.proto(NET), "onnxq")
    ar = run(observed_model(ready.model, ["ar"]), data, "ar")[0]
    stats = TensorStatistics()
    stats.update(ar)
    fmt = ready.profile.activations.format(4, True)
    low, high = choose_range(stats, "mse", fmt)
    sums = ErrorSums()
    sums.add(ar, fake_quantize(ar, qparams_from_range(max(low, 0), high, fmt)))
    entry = next(e for e in found.of("activations") if e.tensors == ("ar",))
    assert entry.bits[4] == pytest.approx(sums.err_sq / sums.ref_sq, rel=1e-3)


@pytest.mark.parametrize("method", ["hessian", "one-at-a-time"])
def test_ctrl_c_and_the_same_call_again(tmp_path, method):
    how: dict[str, Any] = {
        "method": method, "bits": [4, 2], "activation_bits": [4], "options": HutchinsonOptions(rounds=9, budget=None),
    }  # fmt: skip
    expected = measure_sensitivity(floating.proto(NET), samples(), **how)
    path = tmp_path / "state.json"

    def interrupt(done: int, _total: int | None) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRun, match=r"state\.json, the same command continues"):
        measure_sensitivity(floating.proto(NET), samples(), resume=path, progress=interrupt, **how)
    with pytest.raises(ConfigError, match="started with different data"):
        measure_sensitivity(floating.proto(NET), {"x": samples()["x"][1:]}, resume=path, **how)
    found = measure_sensitivity(floating.proto(NET), samples(), resume=path, **how)
    assert found.layers == expected.layers


def test_a_budget_that_is_too_small_takes_fewer_samples_and_says_so(monkeypatch):
    monkeypatch.setattr(measurement, "SECONDS_MIN", 1e-9)  # a quick machine does 9 samples in the least that is left
    told: list[str] = []
    options = HutchinsonOptions(budget=1e-6)
    found = measure_sensitivity(floating.proto(NET), samples(), bits=[4], options=options, say=told.append)
    assert found.created["samples"] == 8
    assert any("allows 8 of 16 samples" in line for line in told)
    assert {e.extra["probes"] for e in found.layers} == {2}


def test_refused():
    model, data = floating.proto(NET), samples()
    with pytest.raises(ConfigError, match="hessian needs data"):
        measure_sensitivity(model)
    with pytest.raises(ConfigError, match="method 'hesian': choose from hessian"):
        measure_sensitivity(model, data, method="hesian")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="metric 'loud'"):
        measure_sensitivity(model, data, metric="loud")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="weight-error measures only weights"):
        measure_sensitivity(model, method="weight-error", activation_bits=[8])
    with pytest.raises(ConfigError, match="supports weights of 8 bits, not 4"):
        measure_sensitivity(model, method="weight-error", profile="tensorrt", bits=[4])
    with pytest.raises(DataError, match="no samples"):
        measure_sensitivity(model, iter(()), options=FAST)
    with pytest.raises(DataError, match="label 9, but the model has 4 classes"):
        measure_sensitivity(model, data | {"labels": np.full(SAMPLES, 9)}, method="one-at-a-time", labels=True)
    with pytest.raises(DataError, match=r"\[2\]: the model's outputs are not finite"):
        measure_sensitivity(
            model, {"x": np.where(np.arange(SAMPLES)[:, None, None, None] == 2, np.float32(3e38), data["x"])}
        )
    nothing = floating.proto("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match="quantizes none of its layers"):
        measure_sensitivity(nothing, method="weight-error")


def made() -> Sensitivity:
    layers = (
        LayerSensitivity("c1", "weights", {8: 0.5, 4: 1.25}, {8: 0.1, 4: 0.2}, extra={"trace": 3.0}),
        LayerSensitivity("c1", "activations", {8: 1e-300}, tensors=("x",), readers=("c1", "c2")),
        LayerSensitivity("c1", "activations", {8: -0.5}, tensors=("y",)),
    )
    return Sensitivity("ab" * 32, "m.onnx", "hessian", layers, {"seed": 0})


def test_a_file_is_read_back_as_it_was(tmp_path):
    path = tmp_path / "s.json"
    made().save(path)
    assert load_sensitivity(path) == made()
    assert load_sensitivity(path, "ab" * 32).weights(4) == {"c1": 1.25}
    assert json.loads(path.read_text())["format"] == "onnxq-sensitivity-1"
    with pytest.raises(ConfigError, match=r"s\.json: the sensitivities are for another model \(m\.onnx"):
        load_sensitivity(path, "cd" * 32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "onnxq-sensitivity-9"}, "not a sensitivity file that onnxq reads"),
        ({"layers": [{"node": "c", "kind": "weights", "bits": {"8": "many"}}]}, "'many' is not a finite number"),
        ({"layers": [{"node": "c", "kind": "weights", "bits": {"8": float("nan")}}]}, "nan is not a finite number"),
        ({"layers": [{"node": "c", "kind": "weights", "bits": {"b": 1}}]}, "'b' is not a width"),
        ({"layers": [{"node": "c", "kind": "weights", "bits": {}}]}, "has no widths"),
        ({"layers": [{"node": "c", "kind": "biases", "bits": {"8": 1}}]}, "neither weights nor activations"),
        ({"layers": [{"kind": "weights", "bits": {"8": 1}}]}, "'node' is missing"),
        ({"layers": [{"node": "c", "kind": "weights", "bits": {"8": 1}}] * 2}, "c occurs twice"),
        ({"layers": None}, "damaged"),
        ({"model_sha256": 3}, "is not text"),
        ({"created": None}, "damaged"),
    ],
)
def test_damaged_files(tmp_path, change, told):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(json.loads(made().to_json()) | change))
    with pytest.raises(ConfigError, match=told) as err:
        load_sensitivity(path)
    assert str(path) in str(err.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '"onnxq-sensitivity-1"'])
def test_files_that_are_none(tmp_path, text):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a sensitivity file"):
        load_sensitivity(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_sensitivity(tmp_path / "nothing.json")
