"""onnxq.quantize as a library: every setting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxq
from onnxq import demo
from onnxq.card import CARD_KEY
from onnxq.errors import ConfigError, ModelError
from onnxq.placement.settings import dump_config, parse_overrides
from support.demo_model import bare, logits, sqnr, weights_of

PROFILES = Path(onnxq.__file__).parent / "profiles"


def test_overrides_mean_the_same_as_dict_toml_and_json(images: NDArray[np.float32], tmp_path: Path) -> None:
    names = list(weights_of(onnx.load(demo.model_path())))
    overrides = {
        names[2]: {"weight_bits": 4, "activation_bits": 6},
        names[3]: "float",
        f"{names[4]}|nothing": {"weight_bits": 3},
    }
    (tmp_path / "c.toml").write_text(dump_config(parse_overrides(overrides)))
    (tmp_path / "c.json").write_text(json.dumps(overrides))
    (tmp_path / "n.json").write_text(json.dumps({"nodes": overrides}))
    made = onnxq.quantize(demo.model_path(), {"image": images}, overrides=overrides).model
    for file in ("c.toml", "c.json", "n.json"):
        assert bare(onnxq.quantize(demo.model_path(), {"image": images}, overrides=tmp_path / file).model) == bare(made)
    types = weights_of(made)
    assert {n for n, t in types.items() if t == TensorProto.INT4} == {names[2], names[4]}
    assert {n for n, t in types.items() if t == TensorProto.FLOAT} == {names[3]}
    assert all(t == TensorProto.INT8 for n, t in types.items() if n not in names[2:5])


def test_exclude_takes_names_and_expressions(images: NDArray[np.float32]) -> None:
    names = list(weights_of(onnx.load(demo.model_path())))
    kept = onnxq.quantize(demo.model_path(), {"image": images}, exclude=[names[1], f"{names[2][:-1]}[{names[2][-1]}]"])
    types = weights_of(kept.model)
    assert {n for n, t in types.items() if t == TensorProto.FLOAT} == {names[1], names[2]}
    reasons = {node.name: node.reason for node in kept.card.float_nodes}
    assert "user" in reasons[names[1]] and "user" in reasons[names[2]]


def test_op_types(images: NDArray[np.float32]) -> None:
    types = weights_of(onnxq.quantize(demo.model_path(), {"image": images}, op_types=["Gemm"]).model)
    gemms = {n.name for n in onnx.load(demo.model_path()).graph.node if n.op_type == "Gemm"}
    assert {n for n, t in types.items() if t == TensorProto.INT8} == gemms


def test_fewer_weight_bits_lose_more(images: NDArray[np.float32]) -> None:
    found = [
        sqnr(onnxq.quantize(demo.model_path(), {"image": images}, weight_bits=bits, first_last_bits=None).model)
        for bits in range(2, 9)
    ]
    assert found == sorted(found), found
    assert found[0] < 12 and found[-1] > 28, found


def test_fewer_activation_bits_lose_more(images: NDArray[np.float32]) -> None:
    found = [
        sqnr(onnxq.quantize(demo.model_path(), {"image": images}, activation_bits=bits, first_last_bits=None).model)
        for bits in range(2, 9)
    ]
    assert found == sorted(found), found
    assert found[0] < 12 and found[-1] > 28, found


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_use_no_more_levels_than_their_bits(bits: int, images: NDArray[np.float32]) -> None:
    """Weights as stored, activations as they come out of QuantizeLinear."""
    made = onnxq.quantize(
        demo.model_path(), {"image": images}, weight_bits=bits, activation_bits=bits, first_last_bits=None
    ).model
    types = weights_of(made)
    assert set(types.values()) == {TensorProto.INT4 if bits <= 4 else TensorProto.INT8}
    codes = [t for t in made.graph.initializer if t.name.endswith("_quantized") and t.data_type != TensorProto.INT32]
    assert len(codes) == len(types)
    for tensor in codes:
        values = numpy_helper.to_array(tensor).astype(np.int64)
        assert np.abs(values).max() == 2 ** (bits - 1) - 1, tensor.name  # narrow range, and the largest is reached
    quantized = [n.output[0] for n in made.graph.node if n.op_type == "QuantizeLinear"]
    observed = onnx.ModelProto()
    observed.CopyFrom(made)
    observed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in quantized)
    for optimize in (False, True):
        opened = onnxq.session(observed, threads=1, optimize=optimize)
        for name, values in zip(quantized, opened.run(quantized, {"image": images[:8]}), strict=True):
            assert int(values.max()) - int(values.min()) < 2**bits, name


def test_bits_of_the_first_and_last_layer(images: NDArray[np.float32]) -> None:
    names = list(weights_of(onnx.load(demo.model_path())))
    kept = weights_of(onnxq.quantize(demo.model_path(), {"image": images}, weight_bits=4).model)
    assert {n for n, t in kept.items() if t == TensorProto.INT8} == {names[0], names[-1]}
    lowered = weights_of(onnxq.quantize(demo.model_path(), {"image": images}, first_last_bits=4).model)
    assert {n for n, t in lowered.items() if t == TensorProto.INT4} == {names[0], names[-1]}


def test_bits_that_the_target_does_not_support(images: NDArray[np.float32]) -> None:
    for settings in ({"weight_bits": 4}, {"activation_bits": 4}, {"first_last_bits": 4}):
        with pytest.raises(ConfigError, match="tensorrt supports"):
            onnxq.quantize(demo.model_path(), {"image": images}, profile="tensorrt", **settings)


def test_weight_range(images: NDArray[np.float32]) -> None:
    made = {
        kind: sqnr(
            onnxq.quantize(
                demo.model_path(), {"image": images}, weight_bits=4, first_last_bits=None, weight_range=kind
            ).model
        )
        for kind in ("max", "mse")
    }
    assert made["mse"] > made["max"]


def test_a_profile_by_name_path_and_object(
    images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path
) -> None:
    own = tmp_path / "my own {profile}, as it is.toml"
    own.write_text((PROFILES / "onnxruntime-cpu.toml").read_text())
    for profile in (own, str(own), onnxq.load_profile("onnxruntime-cpu")):
        assert bare(onnxq.quantize(demo.model_path(), {"image": images}, profile=profile).model) == bare(expected)


def test_calibration_methods_differ_and_are_recorded(images: NDArray[np.float32]) -> None:
    made = {
        m: onnxq.quantize(demo.model_path(), {"image": images}, calibration=m) for m in ("max", "percentile:90", "mse")
    }
    assert len({bare(q.model) for q in made.values()}) == 3
    for method, q in made.items():
        assert method.partition(":")[0] in q.card.method.activations.clipping
    with pytest.raises(ConfigError, match="kl"):
        onnxq.quantize(demo.model_path(), {"image": images}, calibration="kl")


def test_quantizing_again_must_be_requested(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="already quantized"):
        onnxq.quantize(expected, {"image": images})
    again = onnxq.quantize(expected, {"image": images}, requantize=True)
    assert weights_of(again.model) == weights_of(expected)
    assert sqnr(again.model) > sqnr(expected) - 1
    lower = onnxq.quantize(expected, {"image": images}, requantize=True, weight_bits=4)
    assert TensorProto.INT4 in weights_of(lower.model).values()
    assert [p.key for p in again.model.metadata_props].count(CARD_KEY) == 1


def test_requantize_does_nothing_to_a_float_model(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    assert bare(onnxq.quantize(demo.model_path(), {"image": images}, requantize=True).model) == bare(expected)


def test_verify_and_reports(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    heard: list[str] = []
    result = onnxq.quantize(
        demo.model_path(), {"image": images}, verify=True, on_report=lambda report: heard.append(report.text)
    )
    assert [r.text for r in result.reports] == heard
    assert bare(result.model) == bare(expected)
    proven = {r.text.partition("{")[0]: r.differences for r in result.reports if r.differences}
    assert {"fold-constants", "eliminate-identity", "fold-batchnorm"} <= proven.keys()
    assert "insert-qdq" not in proven
    assert 0 <= proven["fold-batchnorm"]["logits"] < 1e-3
    folded = next(r for r in result.reports if r.text.startswith("fold-batchnorm"))
    assert folded.changed == sum(n.op_type == "BatchNormalization" for n in onnx.load(demo.model_path()).graph.node)


def test_save_after(images: NDArray[np.float32], tmp_path: Path) -> None:
    onnxq.quantize(demo.model_path(), {"image": images}, save_after=("fold-batchnorm", tmp_path / "folded.onnx"))
    folded = onnx.load(tmp_path / "folded.onnx")
    assert not {"BatchNormalization", "QuantizeLinear"} & {n.op_type for n in folded.graph.node}
    np.testing.assert_allclose(logits(folded), logits(demo.model_path()), atol=1e-4)


def test_two_runs_make_the_same_bytes(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    assert bare(onnxq.quantize(demo.model_path(), {"image": images}).model) == bare(expected)
