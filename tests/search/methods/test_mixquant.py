"""MixQuant against its definition, and both readings of its argmin."""

import csv
import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.cost.prepared import prepare, weights_of
from onnxq.errors import ConfigError, ModelError
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weight_error import relative_errors
from onnxq.search.choose import search_bits
from onnxq.search.error_table import ErrorTable, error_table, relative_error_table, rule_of
from onnxq.search.inputs import SearchInputs
from onnxq.search.methods.mixquant import DEFAULT_LOSS, WIDTHS, MixQuant, choose, search_mixquant, thresholds
from onnxq.search.space import make_space

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,8,8] x) => (y) <float[4,3,3,3] w1, float[4,4,1,1] w2, float[4,10] w3> {
[first] a = Conv(x, w1)
[r] b = Relu(a)
[second] c = Conv(b, w2)
[p] d = GlobalAveragePool(c)
[f] e = Flatten(d)
[last] y = Gemm(e, w3)
}"""


def model(seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    parsed = onnx.parser.parse_model(TEXT)
    for info in parsed.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape) * rng.lognormal(sigma=2, size=(shape[0], *[1] * (len(shape) - 1)))
        parsed.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), info.name))
    del parsed.graph.value_info[:]
    return parsed


def table(**errors: dict[int, float]) -> ErrorTable:
    return ErrorTable(errors, dict.fromkeys(errors, 1), "affine", 0.0)


def test_the_paper_chooses_the_lowest_width_that_satisfies_the_constraint():
    found = table(a={8: 1.0, 6: 1.9, 4: 2.1, 2: 9.0}, b={8: 1.0, 6: 2.0, 4: 2.0, 2: 2.0})
    assert choose(found, 2, (8, 6, 4, 2)) == {"a": 6, "b": 2}
    assert choose(found, 1, (8, 6, 4, 2)) == {"a": 8, "b": 8}
    assert choose(found, 100, (8, 6, 4)) == {"a": 4, "b": 4}


def test_the_other_reading_takes_the_least_error_and_of_equal_ones_the_widest():
    found = table(a={8: 1.0, 6: 1.9, 4: 0.5}, b={8: 1.0, 6: 1.0, 4: 2.0})
    assert choose(found, 2, (8, 6, 4), reading="least-error") == {"a": 4, "b": 8}


def test_where_nothing_satisfies_the_widest_width_is_taken():
    assert choose(table(a={8: 1.0, 6: 16.0, 4: 250.0}), 2, (6, 4)) == {"a": 6}


def test_weights_without_error_take_the_lowest_width():
    zero = table(a=dict.fromkeys((8, 4, 2), 0.0), grid={8: 0.0, 4: 0.0, 2: 1.0})
    assert choose(zero, 2, (8, 4, 2)) == {"a": 2, "grid": 4}
    assert [zero.relative("grid", b) for b in (8, 4, 2)] == [1.0, 1.0, float("inf")]


def test_fixed_layers_keep_their_width():
    assert choose(table(a={8: 1.0, 4: 1.0}, b={8: 1.0, 4: 1.0}), 2, (8, 4), fixed={"a": 8}) == {"a": 8, "b": 4}


def test_errors_of_a_model_and_its_most_sensitive_layers():
    prepared = prepare(model(), "onnxruntime-cpu")
    found = error_table(prepared)
    assert list(found.errors) == ["first", "second", "last"]
    assert found.parameters == {"first": 108, "second": 16, "last": 40}
    for errors in found.errors.values():
        assert list(errors) == [8, 7, 6, 5, 4, 3, 2]
        assert errors[2] > errors[4] > errors[8] > 0
    ranking = found.most_sensitive(4)
    assert {name for name, _ in ranking} == set(found.errors)
    assert ranking[0][1] == max(found.relative(n, 4) for n in found.errors)


def test_one_scale_a_channel_has_less_error_and_powers_of_two_more():
    prepared = prepare(model(), "onnxruntime-cpu")
    by = {q: error_table(prepared, q).errors["first"][4] for q in ("symmetric", "affine", "power-of-two", "profile")}
    assert by["symmetric"] < by["affine"] < by["power-of-two"]
    assert by["profile"] == by["symmetric"]


def test_the_choice_changes_at_the_thresholds_only():
    found = error_table(prepare(model(), "onnxruntime-cpu"))
    points = thresholds(found)
    assert points[0] == 1
    assert points == sorted(set(points))
    for low, high in itertools.pairwise(points):
        if high > low * (1 + 1e-9):
            assert choose(found, low * (1 + 1e-12)) == choose(found, high * (1 - 1e-12))
    sizes = [sum(choose(found, q * (1 + 1e-12)).values()) for q in points]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 2 * len(found.errors)


@pytest.mark.parametrize("seed", [0, 1])
def test_without_a_qem_or_a_limit_widths_lose_a_stated_sqnr_and_say_so(seed):
    space = make_space(prepare(model(seed), "onnxruntime-cpu"), bits=WIDTHS)
    errors = error_table(space.prepared)
    found = search_mixquant(space, errors)
    for c in found.layers:
        lost = {b: 10 * np.log10(errors.relative(c.node, b)) for b in WIDTHS}
        assert lost[c.weight_bits] <= DEFAULT_LOSS
        assert all(lost[b] > DEFAULT_LOSS for b in WIDTHS if b < c.weight_bits)
    assert any(c.weight_bits < 8 for c in found.layers)
    assert any("neither a QEM nor a limit" in note for note in found.notes)


def test_a_loss_of_sqnr_is_a_qem_in_decibels():
    by_loss = search_bits(model(), "mixquant", max_sqnr_loss=20.0)
    by_qem = search_bits(model(), "mixquant", qem=100.0)
    assert by_loss.assignment == by_qem.assignment
    assert by_loss.parameters["qem"] == pytest.approx(100)
    assert not by_loss.notes or "neither" not in by_loss.notes[0]
    for how, told in (
        ({"qem": 2.0, "max_sqnr_loss": 6.0}, "give one of"),
        ({"max_sqnr_loss": -1.0}, "decibels from 0"),
        ({"max_sqnr_loss": float("nan")}, "decibels from 0"),
        ({"rqe": "x.txt"}, "written as .csv"),
    ):
        with pytest.raises(ConfigError, match=told):
            search_bits(model(), "mixquant", **how)


def test_it_is_said_when_nothing_was_lowered():
    space = make_space(prepare(model(), "onnxruntime-cpu"), bits=WIDTHS)
    errors = error_table(space.prepared)
    least = min(errors.relative(n, 7) for n in errors.errors)
    found = search_mixquant(space, errors, 2.0)
    assert {c.weight_bits for c in found.layers} == {8}
    assert any("no layer is below 8 bits" in note and f"at least {least:.3g} times" in note for note in found.notes)
    assert not any("no layer" in note for note in search_mixquant(space, errors, least * 1.001).notes)
    other = search_mixquant(space, errors, 1e6, reading="least-error")
    assert any("least-error takes a lower width only" in note for note in other.notes)
    assert not any("no layer" in n for n in search_mixquant(space, errors, limits={"size": "100%"}).notes)


@pytest.mark.parametrize("quantizer", ["affine", "symmetric", "power-of-two", "profile"])
def test_relative_errors_are_the_means_of_each_weights_error_over_its_value(quantizer):
    prepared = prepare(model(), "onnxruntime-cpu")
    found = relative_error_table(prepared, quantizer, (8, 4, 2))
    rule = rule_of(quantizer, prepared.profile)
    for layer, w, channel in weights_of(prepared.layers):
        axis = channel if rule.granularity == "per-channel" else None
        rows = [w] if axis is None else list(np.moveaxis(w, axis, 0))
        for bits in (8, 4, 2):
            ratios = []
            for row in rows:
                q = qparams_from_range(row.min(), row.max(), rule.format(bits))
                made = fake_quantize(row, q).astype(np.float64)
                ratios += [(a - b) / a for a, b in zip(row.ravel().astype(np.float64), made.ravel(), strict=True) if a]
            assert found.signed[layer.node.name][bits] == pytest.approx(np.mean(ratios), rel=1e-5)
            assert found.magnitude[layer.node.name][bits] == pytest.approx(np.mean(np.abs(ratios)), rel=1e-5)


def test_weights_of_zero_have_no_relative_error():
    w = np.array([0.0, 1.0, -1.0, 0.0, 0.3], np.float32)
    fmt = QuantFormat(8, True)
    assert np.isfinite(relative_errors(w, [fmt])).all()
    assert (relative_errors(np.zeros(3, np.float32), [fmt]) == 0).all()


def test_the_report_of_relative_errors(tmp_path):
    said: list[str] = []
    path = tmp_path / "r.csv"
    inputs = SearchInputs(model(), (8, 4), options={"profile": "onnxruntime-cpu"}, say=said.append)
    method = MixQuant(rqe=str(path))
    tables = list(method.extras(inputs, [method.run(inputs)]))
    known = relative_error_table(inputs.space.prepared, "affine", (8, 4))
    lines = list(csv.DictReader(path.open()))
    assert [row["layer"] for row in lines] == ["first", "second", "last"]
    assert [float(row["rqe_4"]) for row in lines] == pytest.approx([known.signed[n][4] for n in known.signed])
    assert [float(row["absolute_8"]) for row in lines] == pytest.approx([known.magnitude[n][8] for n in known.signed])
    assert "squared error" in tables[0].columns[1][0]
    assert "(RQE)" in tables[1].columns[0][0]
    assert [row[0] for row in tables[1].rows] == known.most_sensitive(4)
    assert said == [f"wrote {path}"]


def test_mistakes():
    found = table(a={8: 1.0, 4: 2.0})
    with pytest.raises(ConfigError, match="at least 1"):
        choose(found, 0.5, (8, 4))
    with pytest.raises(ConfigError, match="reading 'x'"):
        choose(found, 2, (8, 4), reading="x")
    prepared = prepare(model(), "onnxruntime-cpu")
    with pytest.raises(ConfigError, match="quantizer 'log'"):
        error_table(prepared, "log")
    with pytest.raises(ConfigError, match="matches no node"):
        prepare(model(), "onnxruntime-cpu", exclude=["frist"])
    with pytest.raises(ModelError, match="quantizes none of its layers"):
        prepare(model(), "onnxruntime-cpu", exclude=["first", "second", "last"])
