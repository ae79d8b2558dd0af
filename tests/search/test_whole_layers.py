"""Sensitivities of whole layers, weights and inputs together: what they measure, and what searches make of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxq
from onnxq.errors import ConfigError
from onnxq.placement.settings import Override
from onnxq.search.choose import search_bits, search_partial
from onnxq.search.measure import measure_sensitivity
from onnxq.search.sensitivity import load_sensitivity
from support.command import error_of, inside, succeed

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
# The cube has heavy tails: most of its values lie in the first steps of its range.
TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,16] x) => (float[N,8] y) <float three = {3.0}> {
[one] a = MatMul(x, w1)
[r1] ar = Relu(a)
[two] b = MatMul(ar, w2)
[cube] c = Pow(b, three)
[tail] d = MatMul(c, w3)
[squash] e = Tanh(d)
[four] f = MatMul(e, w4)
[r2] g1 = Relu(f)
[five] y = MatMul(g1, w5)
}"""
LAYERS = ("one", "two", "tail", "four", "five")
SHAPES = {"w1": (16, 32), "w2": (32, 32), "w3": (32, 32), "w4": (32, 32), "w5": (32, 8)}


def heavy() -> onnx.ModelProto:
    """Every weight but that of the layer behind the heavy tail loses something at 8 bits."""
    rng = np.random.default_rng(3)
    model = parser.parse_model(TEXT)
    for name, shape in SHAPES.items():
        w = rng.standard_normal(shape) / np.sqrt(shape[0])
        if name == "w3":
            step = np.abs(w).max(axis=0) / 127
            w = np.round(w / step) * step
        else:
            w[rng.integers(0, shape[0], shape[1]), np.arange(shape[1])] *= 3
        model.graph.initializer.append(numpy_helper.from_array(w.astype(np.float32), name))
    return model


def samples(count: int = 256) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": (rng.standard_normal((count, 16)) * np.exp(rng.normal(0, 0.5, (count, 1)))).astype(np.float32)}


def kl(made: onnxq.api.Quantized, data: dict[str, np.ndarray]) -> float:
    outputs = [np.asarray(onnxq.session(m).run(None, data)[0], np.float64) for m in (heavy(), made.model)]
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in outputs)
    return float((p * np.log(p / q)).sum(axis=1).mean())


def kept(found: onnxq.search.result.SearchResult) -> list[str]:
    return [name for name, o in found.assignment.items() if o.keep_float]


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "tvm", "onnxq"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_layer_costs_what_the_model_costs_with_only_that_layer_quantized(profile, bits):
    data = samples(64)
    try:
        found = measure_sensitivity(heavy(), data, profile=profile, kind="layer", bits=(bits,), calibration="max")
    except ConfigError:
        pytest.skip(f"{profile} has no {bits} bits")
    assert [e.kind for e in found.layers] == ["layer"] * len(LAYERS)
    assert found.method == "one-at-a-time"
    for layer in LAYERS:
        others = {n: Override(keep_float=True) for n in (*LAYERS, "cube", "r1", "r2", "squash") if n != layer}
        made = onnxq.quantize(
            heavy(), data, profile=profile, calibration="max", qdq=True, overrides=others | {layer: Override(bits)}
        )
        assert found.at(bits)[layer] == pytest.approx(kl(made, data), rel=0.02, abs=2e-7), layer


def test_a_heavy_tailed_input_counts_and_its_weights_alone_do_not():
    how = {"bits": (8,), "calibration": "max", "limit": 64}
    weights = measure_sensitivity(heavy(), samples(), method="one-at-a-time", **how)
    layers = measure_sensitivity(heavy(), samples(), kind="layer", **how)
    assert min(weights.at(8), key=lambda n: weights.at(8)[n]) == "tail"
    assert max(layers.at(8), key=lambda n: layers.at(8)[n]) == "tail"


def test_partial_leaves_the_one_layer_in_float_that_matters():
    how = {"bits": 8, "calibration": "max"}
    weights = measure_sensitivity(heavy(), samples(), method="one-at-a-time", bits=(8,), calibration="max")
    lines: list[str] = []
    before = search_partial(heavy(), samples(), weights, 0.2, **how, say=lines.append)
    assert any("of weights alone" in line for line in lines)
    after = search_partial(heavy(), samples(), max_drop=0.2, **how)
    assert kept(after) == ["tail"]
    assert len(kept(before)) > 3
    assert "inputs" in after.sensitivity
    trials = dict(before.parameters["trials"])
    assert after.parameters["drop"] < trials[3] / 3  # three wrong layers in float, or the one


def test_the_integer_program_takes_whole_layers():
    known = measure_sensitivity(heavy(), samples(), kind="layer", bits=(4, 8), calibration="max", limit=32)
    found = search_bits(heavy(), "ilp", sensitivity=known, bits=(4, 8), limits={"size": "70%"})
    assert found.value == pytest.approx(sum(known.at(c.weight_bits)[c.node] for c in found.layers))
    for how in ({"activation_bits": (4, 8)}, {"activation_bits": "same"}):
        with pytest.raises(ConfigError, match="choose only the widths of weights"):
            search_bits(heavy(), "ilp", sensitivity=known, bits=(4, 8), limits={"size": "70%"}, **how)


def test_partial_honours_fixed_tied_and_excluded_layers():
    how = {"bits": 8, "calibration": "max", "max_drop": 0.2}
    tied = search_partial(heavy(), samples(), **how, ties=[("tail", "five")])
    assert kept(tied) == ["tail", "five"]
    assert tied.parameters["left_float"] == 2
    out = search_partial(heavy(), samples(), **how, exclude=["ta.l"])
    assert kept(out) == ["ta.l"]
    assert out.parameters["left_float"] == 0
    assert "tail" not in {c.node for c in out.layers}
    fixed = search_partial(heavy(), samples(), **(how | {"max_drop": 0.9}), fixed={"one": 4})
    assert fixed.assignment["one"] == Override(4)
    with pytest.raises(ConfigError, match="even with all 4 layers"):
        search_partial(heavy(), samples(), **(how | {"max_drop": 0.0}), fixed={"tail": 4})


def test_what_contradicts_the_kind_is_refused():
    for how, told in (
        ({"method": "hessian"}, "hessian measures weights alone"),
        ({"method": "output-error"}, "output-error measures weights alone"),
        ({"activation_bits": (8,)}, "leave out the widths of activations"),
        ({"kind": "layers"}, "kind 'layers': choose from weights, layer"),
    ):
        with pytest.raises(ConfigError, match=told):
            measure_sensitivity(heavy(), samples(8), **({"kind": "layer"} | how))


def test_the_command_writes_layers_and_partial_reads_them(tmp_path):
    onnx.save(heavy(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **samples(64))
    how = ("--data", "d.npz", "--calibration", "max")
    done = succeed("sensitivity", "m.onnx", *how, "--kind", "layer", "--bits", "8", "-o", "s.json", cwd=tmp_path)
    assert "layer with its inputs" in done.out
    assert load_sensitivity(tmp_path / "s.json").with_inputs
    for more in (("--sensitivity", "s.json"), ()):
        done = succeed(
            "search", "m.onnx", "--method", "partial", *how, *more, "--max-drop", "20%", "-o", "p.toml", cwd=tmp_path
        )
        assert "1 of 5 layers stay in float" in done.err
    assert "hessian measures weights alone" in error_of(
        inside("sensitivity", "m.onnx", *how, "--kind", "layer", "--method", "hessian", "-o", "t.json", cwd=tmp_path)
    )
    assert "keeps activations at 8 bits" in error_of(
        inside(
            "search", "m.onnx", "--method", "partial", *how, "--max-drop", "20%", "--activation-bits", "4", cwd=tmp_path
        )
    )
