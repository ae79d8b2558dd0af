"""Sums of a CPU without VNNI saturate: that is named, and only what helps is advised."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from onnxq.data.source import input_specs, open_data
from onnxq.graph.model import load, to_proto
from onnxq.measure.proof import Proof, ProofOptions, Subject, prove, saturation
from onnxq.measure.proof.differences import Differences
from onnxq.measure.proof.runs import EXACT

K = 64
LEVEL = 5.1  # the largest code of the inputs
HEAD = f'<ir_version: 8, opset_import: ["": 17]> g (float[N,{K}] x) => (float[N,{K}] y)'
# Weights of one layer, of two with each its own, and of two that read the same codes.
FLOAT = {
    "one": "{ y = MatMul(x, w) }",
    "two": "{ a = MatMul(x, w) y = MatMul(a, w) }",
    "shared": "{ a = MatMul(x, w) y = MatMul(a, w) }",
}
QDQ = {
    "one": "{ q = QuantizeLinear(x, xs, z) d = DequantizeLinear(q, xs, z) v = DequantizeLinear(wq, ws, wz) "
    "a = MatMul(d, v) r = QuantizeLinear(a, as, z) y = DequantizeLinear(r, as, z) }",
    "two": "{ q = QuantizeLinear(x, xs, z) d = DequantizeLinear(q, xs, z) v = DequantizeLinear(wq, ws, wz) "
    "a = MatMul(d, v) r = QuantizeLinear(a, as, z) b = DequantizeLinear(r, as, z) t = DequantizeLinear(tq, ws, wz) "
    "c = MatMul(b, t) p = QuantizeLinear(c, ys, z) y = DequantizeLinear(p, ys, z) }",
    "shared": "{ q = QuantizeLinear(x, xs, z) d = DequantizeLinear(q, xs, z) v = DequantizeLinear(wq, ws, wz) "
    "a = MatMul(d, v) r = QuantizeLinear(a, as, z) b = DequantizeLinear(r, as, z) t = DequantizeLinear(wq, ws, wz) "
    "c = MatMul(b, t) p = QuantizeLinear(c, ys, z) y = DequantizeLinear(p, ys, z) }",
}


def built(text: str, constants: dict[str, Any]) -> onnx.ModelProto:
    """A model from text, with those of the constants that it reads."""
    made = onnx.parser.parse_model(f"{HEAD} {text}")
    read = {name for node in made.graph.node for name in node.input}
    used = {name: np.asarray(value) for name, value in constants.items() if name in read}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in used.items())
    onnx.checker.check_model(made)
    return made


def constants(largest: int) -> dict[str, Any]:
    """Weights whose codes are all the largest, or 1 less for the second layer, and scales that fit."""
    codes = np.full((K, K), largest, np.int8)
    scale = np.float32(1.27 / largest)
    one, two = np.float32(LEVEL * K * 1.27), np.float32(LEVEL * K * 1.27 * K * 1.27)
    return {
        "w": codes * scale, "wq": codes, "tq": codes.copy(), "ws": scale, "wz": np.int8(0), "z": np.uint8(0),
        "xs": np.float32(LEVEL / 255), "as": one / np.float32(255), "ys": two / np.float32(255),
    }  # fmt: skip


def proof(form: str, largest: int = 127, **subject: Any) -> tuple[Proof, onnx.ModelProto]:
    """The proof of a product whose inputs are all at their largest code."""
    reference, product = built(FLOAT[form], constants(largest)), built(QDQ[form], constants(largest))
    data = open_data([{"x": np.full((1, K), LEVEL, np.float32)}] * 2, input_specs(load(product).graph))
    return prove(Subject(load(reference), load(product), **subject), data, ProofOptions()), product


def saturates() -> bool:
    """Whether onnxruntime does on this CPU."""
    made = built(QDQ["one"], constants(127))
    plain = ort.InferenceSession(made.SerializeToString()).run(None, {"x": np.full((1, K), LEVEL, np.float32)})[0]
    return bool(np.abs(plain - LEVEL * K * 1.27).max() > 2)


def loads_exactly(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime's exact mode accepts a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for key, value in EXACT.items():
        options.add_session_config_entry(key, value)
    try:
        ort.InferenceSession(model.SerializeToString(), options)
    except Exception:  # onnxruntime's own classes derive straight from Exception
        return False
    return True


@pytest.mark.shared_weight  # sessions as users have them
@pytest.mark.parametrize("widths", [(8, 7, 4), (8,)], ids=["7 bits", "8 bits only"])
@pytest.mark.parametrize("form", list(QDQ))
def test_it_is_named_and_only_what_helps_is_advised(form: str, widths: tuple[int, ...]) -> None:
    found, product = proof(form, weight_bits=widths)
    if not saturates():
        assert found.ok
        return
    (finding,) = found.findings
    assert finding.kind == "differs" and finding.cause == "saturation" and "VNNI" in finding.text
    assert ("--weight-bits 7" in finding.text) == (7 in widths)
    assert ("x64quantprecision" in finding.text) == loads_exactly(product)
    assert not found.notes


@pytest.mark.shared_weight
@pytest.mark.parametrize("form", list(QDQ))
def test_the_advice_helps(form: str) -> None:
    assert proof(form, largest=63)[0].ok  # 7 bits


@pytest.mark.shared_weight
@pytest.mark.parametrize("form", list(QDQ))
def test_it_is_no_finding_for_a_target_that_does_not_saturate(form: str) -> None:
    found, _ = proof(form, runtime="onnxruntime-gpu")
    assert found.ok
    assert not found.notes and [run.name for run in found.runs] == ["unoptimized", "onnxruntime"]
    assert all(o.sqnr_db is None or o.sqnr_db > 40 for run in found.runs for o in run.outputs)


@pytest.mark.shared_weight
@pytest.mark.parametrize("form", list(QDQ))
def test_what_exact_sums_do_not_mend_is_not_called_saturation(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here nothing is mended: the variant without saturation is the product itself, and there is no exact mode."""
    if not saturates():
        pytest.skip("this CPU computes it right: there is nothing to name")
    monkeypatch.setattr("onnxq.measure.proof.differences.EXACT", {})
    monkeypatch.setattr(saturation, "with_narrow_weights", lambda product: product)
    monkeypatch.setattr(saturation, "with_own_weights", lambda product: product)
    (finding,) = proof(form)[0].findings
    assert finding.cause != "saturation" and "VNNI" not in finding.text


def test_narrow_weights_compute_the_same_with_codes_that_cannot_saturate() -> None:
    rng = np.random.default_rng(3)
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,6,6] x) => (float[1,4,6,6] y)
        <float s = {0.02}, uint8 z = {128}, int8[4] wz = {0, 0, 0, 0}, float bs = {0.001}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear<axis=0>(wq, ws, wz)
          b = DequantizeLinear(bq, bs) c = Conv(d, w, b) h = DequantizeLinear(hq, s) y = Mul(c, h) }"""
    )
    arrays = {
        "wq": rng.integers(-128, 128, (4, 3, 1, 1)).astype(np.int8),
        "ws": rng.uniform(0.01, 0.1, 4).astype(np.float32),
        "bq": rng.integers(-9999, 9999, 4).astype(np.int32),
        "hq": np.int8(101),  # its scale is that of the input too, which must stay
    }
    made.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    twin = to_proto(saturation.with_narrow_weights(load(made)))
    x = {"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)}
    first, second = (ort.InferenceSession(m.SerializeToString()).run(None, x)[0] for m in (made, twin))
    assert np.abs(first - second).max() < 0.05 * np.abs(first).max() and not np.array_equal(first, second)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in twin.graph.initializer}
    read = {n.input[0] for n in twin.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored}
    codes = [stored[name] for name in read if stored[name].dtype == np.int8]
    assert len(codes) == 2 and all(np.abs(c.astype(int)).max() <= 64 for c in codes)


@pytest.mark.shared_weight
@pytest.mark.parametrize("form", list(QDQ))
def test_own_weights_compute_the_same_and_load_in_exact_mode(form: str) -> None:
    made = built(QDQ[form], constants(101))
    twin = to_proto(saturation.with_own_weights(load(made)))
    assert loads_exactly(twin)
    x = {"x": np.random.default_rng(1).uniform(0, LEVEL, (2, K)).astype(np.float32)}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    first, second = (ort.InferenceSession(m.SerializeToString(), options).run(None, x)[0] for m in (made, twin))
    assert np.array_equal(first, second)


@pytest.mark.shared_weight
@pytest.mark.parametrize("form", list(QDQ))
def test_it_is_named_by_narrow_weights_where_nothing_is_exact(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not saturates():
        pytest.skip("this CPU computes it right: there is nothing to name")
    monkeypatch.setattr(Differences, "_runs_exactly", lambda *_: False)
    (finding,) = proof(form, weight_bits=(8, 7))[0].findings
    assert finding.cause == "saturation" and "--weight-bits 7" in finding.text


def test_weights_with_a_zero_point_stay() -> None:
    text = """{ q = QuantizeLinear(x, xs, z) d = DequantizeLinear(q, xs, z) v = DequantizeLinear(wq, ws, wz)
      y = MatMul(d, v) }"""
    made = built(text, constants(127) | {"wz": np.int8(5)})
    twin = to_proto(saturation.with_narrow_weights(load(made)))
    assert {i.name for i in twin.graph.initializer} == {i.name for i in made.graph.initializer}
