"""MixQuant against its definition, and both readings of its argmin."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq.cost.prepared import prepare
from onnxq.errors import ConfigError, ModelError
from onnxq.search.error_table import ErrorTable, error_table
from onnxq.search.methods.mixquant import choose, thresholds

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
