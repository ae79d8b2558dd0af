"""Reading and writing cards: in the model's metadata, and in a .card.json file next to it."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxq.card.card import Card
from onnxq.errors import ModelError
from onnxq.graph.model import Model
from onnxq.graph.protos import parse

CARD_KEY = "onnxq.card"
SUFFIX = ".card.json"


def card_path(model_path: str | Path) -> Path:
    """The card file of a model file: m.int8.onnx → m.int8.card.json, in the same folder."""
    path = Path(model_path)
    return path.with_name((path.stem if path.suffix == ".onnx" else path.name) + SUFFIX)


def embed(model: Model, card: Card) -> None:
    """Store the card in the model's metadata (key onnxq.card, compact JSON), replacing an earlier one.

    What was measured stays out, so that the same command writes the same model.
    """
    model.set_metadata(CARD_KEY, card.without_measurements().to_json(compact=True))


def read_card(source: str | Path | onnx.ModelProto | Model) -> Card:
    """The card of a model: the one in its metadata, else the .card.json next to it; or a .card.json itself.

    Times and memory, which are not in the model, are taken from the .card.json next to it if that is the same card.
    Raises ModelError if the file cannot be read, has no card, or the card is malformed.
    """
    if isinstance(source, Model):
        text = source.metadata.get(CARD_KEY)
        return _from_text(text, source.name, source.path) if text else _beside(source.path, source.name)
    if isinstance(source, onnx.ModelProto):
        text = _embedded(source)
        return _from_text(text, "model") if text else _beside(None, "model")
    path = Path(source)
    raw = _read(path)
    if path.suffix == ".json":
        return Card.from_json(raw, str(path))
    text = _embedded(parse(raw, str(path)))
    return _from_text(text, str(path), path) if text else _beside(path, str(path))


def find_card(model: Model) -> Card | None:
    """Like read_card for a loaded model; None if there is no readable card."""
    try:
        return read_card(model)
    except ModelError:
        return None


def _embedded(proto: onnx.ModelProto) -> str | None:
    return next((p.value for p in proto.metadata_props if p.key == CARD_KEY), None)


def _from_text(text: str, where: str, path: Path | None = None) -> Card:
    """The card in a model's metadata, with the measurements of the card next to it."""
    card = Card.from_json(text, f"{where}, metadata {CARD_KEY}")
    if path is None or card != card.without_measurements():
        return card
    try:
        beside = Card.from_json(card_path(path).read_bytes())
    except (OSError, ModelError):
        return card
    return beside if beside.without_measurements() == card else card


def _beside(path: Path | None, where: str) -> Card:
    if path is not None and card_path(path).is_file():
        file = card_path(path)
        return Card.from_json(_read(file), str(file))
    beside = f" and there is no {card_path(path).name} next to it" if path is not None else ""
    raise ModelError(f"{where}: no quantization card in it{beside}; `onnxq quantize` writes cards")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as err:
        raise ModelError(f"{path}: cannot be read: {err.strerror}") from None
