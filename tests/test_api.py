"""onnxq.quantize as a library: every form of data, every setting, and what comes out of it."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxq
from onnxq import demo
from onnxq.calibrate.store import load_statistics, save_statistics
from onnxq.card import CARD_KEY
from onnxq.data.source import input_specs, open_data
from onnxq.errors import ConfigError, DataError, ModelError, OnnxqError, OutputError
from onnxq.graph.model import load
from onnxq.numeric.metrics import sqnr_db
from onnxq.placement.settings import dump_config, parse_overrides

SAMPLES = 48
PROFILES = Path(onnxq.__file__).parent / "profiles"
Feed = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """Calibration images, N×1×8×8."""
    return demo.calibration_data()["image"][:SAMPLES]


@pytest.fixture(scope="module")
def expected(images: NDArray[np.float32]) -> onnx.ModelProto:
    """The demo quantized with every default."""
    return onnxq.quantize(demo.model_path(), {"image": images}).model


def bare(model: onnx.ModelProto) -> bytes:
    """The model without its card: that tells times and where the data came from."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [p for p in copy.metadata_props if p.key != CARD_KEY]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    return copy.SerializeToString(deterministic=True)


def logits(model: onnx.ModelProto | bytes | Path, count: int = 200) -> NDArray[np.float32]:
    """Outputs for validation images, without onnxruntime's own optimizations."""
    opened = onnxq.session(model, threads=1, optimize=False)
    return opened.run(["logits"], {"image": demo.validation_data()["image"][:count]})[0]


def sqnr(model: onnx.ModelProto) -> float:
    """Of the logits, in dB."""
    return sqnr_db(logits(demo.model_path()), logits(model))


def weights_of(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every layer's weight, by the layer's name."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    types = {t.name: t.data_type for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = made_by.get(node.input[1])
            found[node.name] = types[weight.input[0]] if weight is not None else types[node.input[1]]
    return found


# Data


class Reader:
    """onnxruntime's CalibrationDataReader."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._left = iter(images)

    def get_next(self) -> Feed | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def _generator(images: NDArray[np.float32]) -> Iterator[Feed]:
    for image in images:
        yield {"image": image[None]}


def _ragged(images: NDArray[np.float32]) -> Iterator[Feed]:
    for low in range(0, len(images), 7):
        yield {"image": images[low : low + 7]}


def _npz(images: NDArray[np.float32], folder: Path) -> Path:
    np.savez(folder / "data.npz", image=images, labels=np.zeros(len(images), np.int64))
    return folder / "data.npz"


def _npz_folder(images: NDArray[np.float32], folder: Path) -> Path:
    for i, image in enumerate(images):
        np.savez(folder / f"{i:03}.npz", image=image[None])
    return folder


def _test_data_sets(images: NDArray[np.float32], folder: Path) -> Path:
    for i, image in enumerate(images):
        inner = folder / f"test_data_set_{i}"
        inner.mkdir()
        (inner / "input_0.pb").write_bytes(numpy_helper.from_array(image[None], "image").SerializeToString())
    return folder


FORMS: dict[str, Callable[[NDArray[np.float32], Path], Any]] = {
    "list": lambda images, _: list(_generator(images)),
    "generator": lambda images, _: _generator(images),
    "ragged batches": lambda images, _: _ragged(images),
    "callable": lambda images, _: lambda: _generator(images),
    "get_next": lambda images, _: Reader(images),
    "npz": _npz,
    "npz as text": lambda images, folder: str(_npz(images, folder)),
    "folder of npz": _npz_folder,
    "test data sets": _test_data_sets,
    "open source": lambda images, _: open_data({"image": images}, input_specs(load(demo.model_path()).graph)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_model(
    form: str, images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path
) -> None:
    found = onnxq.quantize(demo.model_path(), FORMS[form](images, tmp_path))
    assert bare(found.model) == bare(expected)
    assert [use.samples for use in found.card.resources.data] == [SAMPLES]


def test_the_batch_size_changes_nothing(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    """Float32 sums may differ by batch size within onnxruntime; ranges on this model do not."""
    found = onnxq.quantize(demo.model_path(), {"image": images}, batch_size=7, threads=1)
    ours, theirs = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (found.model, expected))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        if name.endswith("_scale"):
            np.testing.assert_allclose(values, theirs[name], rtol=1e-3)


def test_limit_takes_the_first_samples(images: NDArray[np.float32]) -> None:
    limited = onnxq.quantize(demo.model_path(), {"image": images}, limit=16)
    assert bare(limited.model) == bare(onnxq.quantize(demo.model_path(), {"image": images[:16]}).model)


def test_random_data_is_told_and_seeded() -> None:
    said: list[str] = []
    first = onnxq.quantize(demo.model_path(), random_data=3, seed=1, say=said.append)
    assert any("RANDOM" in line for line in said)
    assert "random" in first.card.to_markdown().lower()
    assert bare(first.model) == bare(onnxq.quantize(demo.model_path(), random_data=3, seed=1).model)
    assert bare(first.model) != bare(onnxq.quantize(demo.model_path(), random_data=3, seed=2).model)


def test_data_is_needed_and_only_once(images: NDArray[np.float32]) -> None:
    with pytest.raises(ConfigError, match="no calibration data"):
        onnxq.quantize(demo.model_path())
    with pytest.raises(ConfigError, match="not both"):
        onnxq.quantize(demo.model_path(), {"image": images}, random_data=3)
    with pytest.raises(DataError, match="'image'"):
        onnxq.quantize(demo.model_path(), {"picture": images})
    assert issubclass(DataError, OnnxqError)


def test_statistics_instead_of_data(images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path) -> None:
    collected = onnxq.quantize(demo.model_path(), {"image": images}).statistics
    assert collected is not None
    save_statistics(collected, tmp_path / "stats")
    for given in (collected, tmp_path / "stats", str(tmp_path / "stats")):
        found = onnxq.quantize(demo.model_path(), statistics=given)
        assert bare(found.model) == bare(expected)
        assert [use.samples for use in found.card.resources.data] == [SAMPLES]


def test_one_collection_serves_every_method(images: NDArray[np.float32]) -> None:
    statistics = onnxq.quantize(demo.model_path(), {"image": images}).statistics
    for method in ("max", "percentile:99.9", "entropy", "mse"):
        fresh = onnxq.quantize(demo.model_path(), {"image": images}, calibration=method)
        again = onnxq.quantize(demo.model_path(), statistics=statistics, calibration=method)
        assert bare(fresh.model) == bare(again.model)


def test_a_resume_file_is_made_and_used(images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path) -> None:
    kept = tmp_path / "kept.stats"
    first = onnxq.quantize(demo.model_path(), {"image": images}, resume=kept)
    assert load_statistics(kept).provenance["samples"] == SAMPLES
    seen: list[int] = []
    again = onnxq.quantize(
        demo.model_path(), {"image": images}, resume=kept, progress=lambda done, total: seen.append(done)
    )
    assert set(seen) == {SAMPLES}, "the samples were run again"
    assert bare(first.model) == bare(again.model) == bare(expected)


def test_progress_counts_samples(images: NDArray[np.float32]) -> None:
    seen: list[tuple[int, int | None]] = []
    onnxq.quantize(demo.model_path(), {"image": images}, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, SAMPLES) and seen[-1] == (SAMPLES, SAMPLES)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# The model


def test_every_form_of_model(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    raw = demo.model_path().read_bytes()
    proto = onnx.load_model_from_string(raw)
    for source in (str(demo.model_path()), raw, proto, load(demo.model_path())):
        assert bare(onnxq.quantize(source, {"image": images}).model) == bare(expected)
    assert proto.SerializeToString(deterministic=True) == onnx.load_model_from_string(raw).SerializeToString(
        deterministic=True
    ), "the caller's model was changed"


def test_what_is_saved_is_the_model(images: NDArray[np.float32], tmp_path: Path) -> None:
    result = onnxq.quantize(demo.model_path(), {"image": images})
    result.save(tmp_path / "d.int8.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.int8.card.json", "d.int8.onnx"]
    saved = onnx.load(tmp_path / "d.int8.onnx")
    assert saved == result.model
    onnx.checker.check_model(saved, full_check=True)
    card = json.loads((tmp_path / "d.int8.card.json").read_text())
    embedded = {p.key: p.value for p in saved.metadata_props}[CARD_KEY]
    assert json.loads(embedded) == card
    assert onnxq.read_card(tmp_path / "d.int8.onnx") == onnxq.read_card(tmp_path / "d.int8.card.json") == result.card
    np.testing.assert_array_equal(logits(tmp_path / "d.int8.onnx"), logits(result.model))
    assert (tmp_path / "d.int8.onnx").stat().st_size < 0.5 * demo.model_path().stat().st_size


def test_a_failed_save_leaves_what_was_there(images: NDArray[np.float32], tmp_path: Path) -> None:
    result = onnxq.quantize(demo.model_path(), {"image": images})
    (tmp_path / "m.card.json").mkdir()
    with pytest.raises(OutputError, match=r"m\.card\.json"):
        result.save(tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.card.json"]


def test_the_outside_of_the_model_stays(images: NDArray[np.float32]) -> None:
    source = onnx.load(demo.model_path())
    source.doc_string, source.graph.doc_string = "a model", "a graph"
    source.model_version, source.domain = 7, "org.example"
    source.graph.node[3].doc_string = "a node"
    helper.set_model_props(source, {"author": "someone", "classes": "0 1 2"})
    made = onnxq.quantize(source, {"image": images}).model
    assert (made.doc_string, made.graph.doc_string) == ("a model", "a graph")
    assert (made.model_version, made.domain) == (7, "org.example")
    assert next(n for n in made.graph.node if n.name == source.graph.node[3].name).doc_string == "a node"
    metadata = {p.key: p.value for p in made.metadata_props}
    assert metadata.keys() == {"author", "classes", CARD_KEY}
    assert (metadata["author"], metadata["classes"]) == ("someone", "0 1 2")
    assert list(made.graph.input) == list(source.graph.input)
    assert list(made.graph.output) == list(source.graph.output)
    assert made.graph.name == source.graph.name


def test_accuracy_survives(images: NDArray[np.float32]) -> None:
    result = onnxq.quantize(demo.model_path(), {"image": demo.calibration_data()["image"]})
    found = result.evaluate(demo.model_path(), demo.validation_data())
    assert found.top1 is not None and found.against is not None
    assert found.against.agreement is not None and found.against.agreement >= 0.985
    assert found.top1 >= 0.98
    assert sqnr(result.model) >= 30
    assert result.card.evaluation is not None and result.card.evaluation["top1"] == found.top1
    assert onnxq.read_card(result.model) == result.card


# Settings


def test_overrides_alike_as_dict_toml_and_json(images: NDArray[np.float32], tmp_path: Path) -> None:
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


def test_bits_of_the_ends(images: NDArray[np.float32]) -> None:
    names = list(weights_of(onnx.load(demo.model_path())))
    kept = weights_of(onnxq.quantize(demo.model_path(), {"image": images}, weight_bits=4).model)
    assert {n for n, t in kept.items() if t == TensorProto.INT8} == {names[0], names[-1]}
    lowered = weights_of(onnxq.quantize(demo.model_path(), {"image": images}, first_last_bits=4).model)
    assert {n for n, t in lowered.items() if t == TensorProto.INT4} == {names[0], names[-1]}


def test_bits_that_the_target_lacks(images: NDArray[np.float32]) -> None:
    for settings in ({"weight_bits": 4}, {"activation_bits": 4}, {"first_last_bits": 4}):
        with pytest.raises(ConfigError, match="tensorrt takes"):
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


def test_quantizing_again_needs_to_be_asked_for(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="quantized already"):
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


def test_the_public_names_are_there() -> None:
    for name in onnxq.__all__:
        assert getattr(onnxq, name) is not None
    assert set(onnxq.__all__) <= set(dir(onnxq))


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing it would put the module in the function's place."""
    modules = {module.name for module in pkgutil.iter_modules(onnxq.__path__)}
    functions = {name for name in onnxq.__all__ if not isinstance(getattr(onnxq, name), type)}
    assert "profiles" in modules
    assert not modules & functions
    with pytest.raises(AttributeError, match="quantise"):
        onnxq.quantise  # noqa: B018
