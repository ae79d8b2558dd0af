"""onnxq.quantize as a library: every form of model, and what comes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

import onnxq
from onnxq import demo
from onnxq.card import CARD_KEY
from onnxq.errors import OutputError
from onnxq.graph.model import load
from support.demo_model import bare, logits, sqnr


def test_every_form_of_model(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    raw = demo.model_path().read_bytes()
    proto = onnx.load_model_from_string(raw)
    for source in (str(demo.model_path()), raw, proto, load(demo.model_path())):
        assert bare(onnxq.quantize(source, {"image": images}).model) == bare(expected)
    assert proto.SerializeToString(deterministic=True) == onnx.load_model_from_string(raw).SerializeToString(
        deterministic=True
    ), "the caller's model was changed"


def test_the_saved_file_is_the_model_with_its_card(images: NDArray[np.float32], tmp_path: Path) -> None:
    result = onnxq.quantize(demo.model_path(), {"image": images})
    result.save(tmp_path / "d.int8.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.int8.card.json", "d.int8.onnx"]
    saved = onnx.load(tmp_path / "d.int8.onnx")
    assert saved == result.model
    onnx.checker.check_model(saved, full_check=True)
    card = json.loads((tmp_path / "d.int8.card.json").read_text())
    embedded = {p.key: p.value for p in saved.metadata_props}[CARD_KEY]
    assert json.loads(embedded) == result.card.without_measurements().to_dict() != card
    assert onnxq.read_card(tmp_path / "d.int8.onnx") == onnxq.read_card(tmp_path / "d.int8.card.json") == result.card
    np.testing.assert_array_equal(logits(tmp_path / "d.int8.onnx"), logits(result.model))
    assert (tmp_path / "d.int8.onnx").stat().st_size < 0.5 * demo.model_path().stat().st_size


def test_a_failed_save_leaves_what_was_there(images: NDArray[np.float32], tmp_path: Path) -> None:
    result = onnxq.quantize(demo.model_path(), {"image": images})
    (tmp_path / "m.card.json").mkdir()
    with pytest.raises(OutputError, match=r"m\.card\.json"):
        result.save(tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.card.json"]


def test_names_metadata_inputs_and_outputs_are_kept(images: NDArray[np.float32]) -> None:
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
    assert onnxq.read_card(result.model) == result.card.without_measurements()
