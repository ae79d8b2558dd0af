"""A card survives writing and reading; malformed cards and files are refused."""

import json

import onnx
import pytest

from onnxq.card import (
    CARD_KEY,
    Card,
    card_path,
    embed,
    read_card,
)
from onnxq.card.assembly.float_model import quantized_file_bytes
from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.errors import ModelError
from onnxq.graph.files import write_text
from onnxq.graph.model import load, to_proto
from support.cards import EVALUATION, quantized


def test_json_round_trip(card):
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json(card.to_json(compact=True)) == card
    assert Card.from_dict(card.to_dict()) == card
    evaluated = card.with_evaluation(EVALUATION)
    assert Card.from_json(evaluated.to_json()).evaluation == EVALUATION


def test_the_card_travels_in_the_model_and_beside_it(tmp_path, card):
    source, _ = quantized()
    embed(source, card)
    path = tmp_path / "m.int8.onnx"
    path.write_bytes(to_proto(source).SerializeToString())
    kept = card.without_measurements()
    assert read_card(path) == kept
    assert read_card(onnx.load(path)) == kept
    assert read_card(load(path)) == kept
    assert card_path(path) == tmp_path / "m.int8.card.json"

    bare = tmp_path / "bare.onnx"
    source.set_metadata(CARD_KEY, None)
    bare.write_bytes(to_proto(source).SerializeToString())
    with pytest.raises(ModelError, match=r"no quantization card in it and there is no bare\.card\.json next to it"):
        read_card(bare)
    write_text(card_path(bare), card.to_json())
    assert read_card(bare) == card
    assert read_card(load(bare)) == card
    assert read_card(card_path(bare)) == card


def test_what_is_measured_comes_from_the_card_next_to_the_model(tmp_path, card):
    source, _ = quantized()
    embed(source, card)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_proto(source).SerializeToString())
    write_text(card_path(path), card.to_json())
    assert read_card(path) == read_card(load(path)) == card
    assert read_card(onnx.load(path)) == card.without_measurements()

    write_text(card_path(path), card.with_evaluation(EVALUATION).to_json())  # the card of another model
    assert read_card(path) == card.without_measurements()
    write_text(card_path(path), "damaged")
    assert read_card(path) == card.without_measurements()


def test_a_card_of_another_run_replaces_the_former(card):
    source, _ = quantized()
    source.set_metadata("mine", "kept")
    embed(source, card)
    embed(source, card.with_evaluation(EVALUATION))
    proto = to_proto(source)
    assert [p.key for p in proto.metadata_props].count(CARD_KEY) == 1
    assert read_card(proto).evaluation == EVALUATION
    assert source.metadata["mine"] == "kept"


def test_a_former_card_does_not_count_into_the_file_size():
    source, card = quantized()
    embed(source, card)
    whole = totals(source.graph, layer_costs(source.graph))
    assert quantized_file_bytes(source, whole) == card.cost.file_bytes.after < to_proto(source).ByteSize()


def broken(card: Card, edit) -> str:
    table = card.to_dict()
    edit(table)
    return json.dumps(table)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("layers"), "key 'layers' is missing"),
        (lambda t: t.update(layers="many"), "layers: must be a list"),
        (lambda t: t["layers"][0].update(macs="12"), r"layers\[0\].macs: must be of type int"),
        (lambda t: t["layers"][0].update(macs=True), r"layers\[0\].macs: must be of type int"),
        (lambda t: t["layers"][0].update(weight_shape=[1, None]), r"weight_shape\[1\]"),
        (lambda t: t["layers"][0]["size"].pop("after"), r"layers\[0\].size: key 'after' is missing"),
        (lambda t: t.update(colour="red"), "unknown key 'colour'"),
        (lambda t: t["method"].update(uniform=1), "method.uniform: must be of type bool"),
        (lambda t: t.update(schema=99), "newer than this onnxq reads"),
        (lambda t: t.update(schema="1"), "not a quantization card"),
        (lambda t: t.pop("schema"), "not a quantization card"),
    ],
)
def test_malformed_cards_are_refused_with_the_place(card, edit, message):
    with pytest.raises(ModelError, match=message):
        Card.from_json(broken(card, edit), "x.card.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_json_is_refused(text, tmp_path):
    path = tmp_path / "x.card.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match="not a quantization card"):
        read_card(path)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "none.card.json")
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_card(tmp_path / "x.onnx")
