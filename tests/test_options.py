"""Option objects: every keyword is a field of one, a keyword beats the object, and both give the same result."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

import onnxq
from onnxq import demo
from onnxq.api import QuantizeKeywords
from onnxq.data.options import DataKeywords, DataOptions, RunKeywords, RunOptions, SampleKeywords, data_options
from onnxq.data.source import InputSpec, open_data
from onnxq.errors import ConfigError
from onnxq.lowered import LowerKeywords
from onnxq.measure.proof import ProofKeywords, ProofOptions
from onnxq.placement.settings import Override, QuantSettings, SettingsKeywords
from onnxq.reporting import Reporter, ReporterKeywords
from onnxq.search.choose import PartialKeywords
from onnxq.search.options import SensitivityKeywords, SensitivityOptions
from support.build import floating

INPUTS = [InputSpec("x", ("N", 3), np.dtype(np.float32))]
NET = """g (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w, float[144,4] v, float[4] b>
    { [c] a = Conv(x, w) [f] f = Flatten(a) [fc] y = Gemm(f, v, b) }"""


def fields(*classes: type) -> set[str]:
    return {f.name for cls in classes for f in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    ("keywords", "cls", "left_out"),
    [
        (DataKeywords, DataOptions, {"data"}),
        (RunKeywords, RunOptions, set()),
        (ReporterKeywords, Reporter, set()),
        (SettingsKeywords, QuantSettings, set()),
        (ProofKeywords, ProofOptions, set()),
    ],
)
def test_keywords_mirror_the_fields(keywords: type, cls: type, left_out: set[str]) -> None:
    assert set(typing.get_type_hints(keywords)) == fields(cls) - left_out
    types, declared = typing.get_type_hints(cls), typing.get_type_hints(keywords)
    for name in set(declared) - {"overrides", "exclude", "op_types"}:  # which keywords take in more forms
        assert declared[name] == types[name], name


@pytest.mark.parametrize("keywords", [QuantizeKeywords, SensitivityKeywords, PartialKeywords, LowerKeywords])
def test_no_keyword_of_a_function_is_ignored(keywords: type) -> None:
    options = fields(DataOptions, RunOptions, Reporter, QuantSettings, SensitivityOptions, ProofOptions)
    assert set(typing.get_type_hints(keywords)) <= options
    assert set(typing.get_type_hints(SampleKeywords)) <= fields(DataOptions)


def test_quantize_with_objects_is_quantize_with_keywords() -> None:
    heard: list[str] = []
    words: list[str] = []
    one = onnxq.quantize(
        demo.model_path(),
        onnxq.DataOptions(random_data=4, seed=3),
        settings=onnxq.QuantSettings(calibration="max"),
        run=onnxq.RunOptions(threads=1, batch_size=2),
        reporter=onnxq.Reporter(heard.append, lambda report: words.append(report.text)),
    )
    other = onnxq.quantize(
        demo.model_path(), random_data=4, seed=3, calibration="max", threads=1, batch_size=2, say=heard.append
    )
    assert one.model.graph == other.model.graph
    assert one.card.without_measurements() == other.card.without_measurements()
    assert len(heard) == 2 and words == [r.text for r in one.reports]


def test_a_keyword_beats_the_object() -> None:
    settings = QuantSettings(calibration="max", weight_bits=4)
    found = onnxq.quantize(
        demo.model_path(), DataOptions(random_data=9), settings=settings, random_data=2, weight_bits=8
    )
    assert found.card.resources.data[0].samples == 2
    assert {r.weight_bits for r in found.card.layers} == {8}
    assert "calibration=max" in found.card.pipeline


def test_settings_take_what_overrides_are_written_as() -> None:
    settings = QuantSettings(overrides={"a": {"weight_bits": 4}, "b": "float"}, exclude=["c"], op_types=["Conv"])  # type: ignore[dict-item, arg-type]
    assert settings.overrides == {"a": Override(4), "b": Override(keep_float=True)}
    assert (settings.exclude, settings.op_types) == (("c",), ("Conv",))
    with pytest.raises(ConfigError, match="'a' has unknown key 'bits'"):
        QuantSettings(overrides={"a": {"bits": 4}})  # type: ignore[dict-item]


@pytest.mark.parametrize("function", [onnxq.quantize, onnxq.lower, onnxq.measure_sensitivity, onnxq.search_partial])
def test_unknown_keywords_are_a_type_error(function: typing.Any) -> None:
    arguments = ("m.onnx", None, None)[: 3 if function is onnxq.search_partial else 1]
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword argument 'wieght_bits'"):
        function(*arguments, wieght_bits=4)


def test_sensitivities_with_objects_are_those_with_keywords() -> None:
    samples = {"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}
    model = floating.proto(NET)
    one = onnxq.measure_sensitivity(
        model,
        DataOptions(samples, limit=3),
        measurement=SensitivityOptions("one-at-a-time", (4,), activation_bits=(8,)),
        run=RunOptions(1, 2),
    )
    other = onnxq.measure_sensitivity(
        model, samples, limit=3, method="one-at-a-time", bits=[4], activation_bits=[8], threads=1, batch_size=2
    )
    assert one.layers == other.layers
    assert {k: v for k, v in one.created.items() if k != "seconds"} == {
        k: v for k, v in other.created.items() if k != "seconds"
    }


def test_data_options_are_data() -> None:
    x = np.zeros((5, 3), np.float32)
    assert open_data(DataOptions({"x": x}, limit=4), INPUTS).count() == 4
    assert open_data(DataOptions({"x": x}, limit=4), INPUTS, limit=2).count() == 2
    assert open_data(DataOptions(random_data=3, seed=1), INPUTS).kind == "random"
    assert data_options(DataOptions("a", limit=1), {"limit": 2, "threads": 3}) == DataOptions("a", limit=2)
    assert data_options("a", {}) == DataOptions("a")
