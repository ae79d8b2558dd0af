"""The proof that values are kept: same samples before and after, and a tolerance that rounding explains."""

import ml_dtypes
import numpy as np
import pytest

from onnxq.context import PassContext
from onnxq.data.source import input_specs, open_data
from onnxq.errors import ConfigError, ModelError, VerificationError
from onnxq.graph.model import load
from onnxq.measure import pass_equality as verification
from onnxq.measure.pass_equality import compare
from support.build import floating

NET = "g (float[N,4] x) => (float[N,5] y) <float[4,5] w> { y = MatMul(x, w) }"


def test_random_samples_are_the_same_each_time():
    source = floating.model(NET)
    first, second = (verification.outputs(source, PassContext(source)) for _ in range(2))
    assert list(first) == ["y"]
    assert len(first["y"]) == verification.SAMPLES
    assert not np.array_equal(first["y"][0], first["y"][1])
    assert compare("p", first, second) == {"y": 0.0}


def test_real_samples_are_used_and_only_the_first_few():
    source = floating.model(NET)
    data = {"x": np.arange(40, dtype=np.float32).reshape(10, 4)}
    ctx = PassContext(source, data=open_data(data, input_specs(source.graph)))
    weight = source.graph.nodes[0].inputs[1].values
    for _ in range(2):  # the source can be read again
        found = verification.outputs(source, ctx)["y"]
        assert len(found) == verification.SAMPLES
        for i, value in enumerate(found):
            assert np.allclose(value, data["x"][i : i + 1] @ weight)


def test_several_inputs_and_outputs_of_several_types():
    source = floating.model(
        """g (float[2] a, int64[2] k, bool c) => (float[2] y, int64[2] z, bool d) <float[2] w> {
            y = Add(a, w)
            z = Add(k, k)
            d = Not(c)
        }"""
    )
    found = verification.outputs(source, PassContext(source))
    assert [found[name][0].dtype.name for name in found] == ["float32", "int64", "bool"]


def test_external_weights_and_models_over_the_limit(tmp_path, monkeypatch):
    import onnx

    onnx.save(floating.proto(NET), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    small = load(tmp_path / "m.onnx")
    expected = verification.outputs(small, PassContext(small))
    monkeypatch.setattr("onnxq.graph.model.INLINE_LIMIT", 10)
    monkeypatch.setattr("onnxq.execution.save.INLINE_LIMIT", 10)
    lazy = load(tmp_path / "m.onnx")
    assert compare("p", expected, verification.outputs(lazy, PassContext(lazy))) == {"y": 0.0}


def test_a_shape_that_must_be_given():
    source = floating.model("g (float[N,M] x) => (float[N,M] y) { y = Neg(x) }")
    with pytest.raises(ConfigError, match=r"--input-shape x:DIMS"):
        verification.outputs(source, PassContext(source))


def test_a_model_that_cannot_be_run():
    source = load(floating.proto("g (float[1,2] x) => (float[1,2] y) { y = custom.Thing(x) }"))
    with pytest.raises(ModelError, match="onnxruntime rejects"):
        verification.outputs(source, PassContext(source))
    wrong = floating.model("g (float[1,4] x) => (float[A,B] y) <int64[2] s = {3, 3}> { y = Reshape(x, s) }")
    with pytest.raises(ModelError, match="cannot be run for verification: ") as caught:
        verification.outputs(wrong, PassContext(wrong))
    assert "\n" not in str(caught.value)


def differs(old, new) -> str:
    with pytest.raises(VerificationError) as caught:
        compare("fold", {"y": [np.asarray(old)]}, {"y": [np.asarray(new)]})
    text = str(caught.value)
    assert text.startswith("pass fold changed output y (sample 0)")
    return text


def test_rounding_passes_and_more_does_not():
    old = np.asarray([100.0, 1.0, 0.0], np.float32)
    assert compare("fold", {"y": [old]}, {"y": [old + np.float32(0.005)]}) == {"y": pytest.approx(0.005, rel=1e-2)}
    assert "by 0.02" in differs(old, old + np.float32(0.02))
    assert compare("fold", {"y": [np.zeros(2, np.float32)]}, {"y": [np.full(2, 5e-7, np.float32)]})["y"] < 1e-6
    differs(np.zeros(2, np.float32), np.full(2, 2e-6, np.float32))


def test_half_precision_has_its_own_rounding():
    for dtype, factor in ((np.float16, 0.03), (ml_dtypes.bfloat16, 0.2)):
        old = np.ones(3, dtype)
        assert compare("fold", {"y": [old]}, {"y": [(old * (1 - factor)).astype(dtype)]})["y"] > 0
        differs(old, (old * (1 - 2 * factor)).astype(dtype))


def test_whole_numbers_must_be_equal():
    assert "1 of 2 values differ" in differs([1, 2], [1, 3])
    assert "2 of 2 values differ" in differs([True, False], [False, True])


def test_shape_and_type_must_be_equal():
    assert "it was float32 [2] and is float32 [2, 1]" in differs(np.zeros(2, np.float32), np.zeros((2, 1), np.float32))
    assert "it was float32 [2] and is float64 [2]" in differs(np.zeros(2, np.float32), np.zeros(2))


def test_infinite_and_nan_stay_where_they_were():
    old = np.asarray([np.inf, np.nan, 1.0], np.float32)
    assert compare("fold", {"y": [old]}, {"y": [old.copy()]}) == {"y": 0.0}
    assert "infinite or NaN" in differs(old, np.asarray([-np.inf, np.nan, 1.0], np.float32))
    assert "infinite or NaN" in differs(old, np.asarray([np.inf, np.nan, np.nan], np.float32))
    assert "infinite or NaN" in differs(np.ones(2, np.float32), np.asarray([1, np.inf], np.float32))
    nothing = np.full(2, np.nan, np.float32)
    assert compare("fold", {"y": [nothing]}, {"y": [nothing]}) == {"y": 0.0}


def test_empty_outputs():
    empty = np.zeros((0, 3), np.float32)
    assert compare("fold", {"y": [empty]}, {"y": [empty]}) == {"y": 0.0}


def test_other_outputs():
    with pytest.raises(VerificationError, match="pass fold changed the outputs from y to z"):
        compare("fold", {"y": []}, {"z": []})
