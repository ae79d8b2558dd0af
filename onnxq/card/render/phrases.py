"""Phrases that several renderings of a card share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxq.card import units
from onnxq.card.parts import Change, DataUse
from onnxq.card.schema import CardData


def change(value: Change, unit: Callable[[float | None], str] = units.size) -> str:
    """For example 13.95 MB → 3.6 MB (25.8 %). unit: formats an amount."""
    return f"{unit(value.before)} → {unit(value.after)} ({units.share(value.after, value.before)})"


def counts(card: CardData) -> tuple[int, int]:
    """(layers in integers, layers with a matrix product)."""
    products = [r for r in card.layers if r.macs != 0]
    return sum(r.action == "quantized" for r in products), len(products)


def widths(card: CardData) -> tuple[str, str]:
    """Widths of the quantized weights and of the activations, e.g. 4/8."""
    layers = [r for r in card.layers if r.action == "quantized" and r.macs != 0]
    weights = sorted({r.weight_bits for r in layers if r.weight_bits is not None})
    activations = sorted({c.bits for c in card.precision.activations})
    return tuple("/".join(map(str, found)) or "–" for found in (weights, activations))  # type: ignore[return-value]


def knows_bit_operations(card: CardData) -> bool:
    """Whether the bit operations of any layer are known."""
    return bool(card.cost.bops.before or not card.pretrained.unknown_macs)


def bit_operations_text(card: CardData) -> str:
    """The change in bit operations of the layers with known sizes."""
    unknown = len(card.pretrained.unknown_macs)
    if not knows_bit_operations(card):
        return "unknown (the model leaves sizes open: --input-shape)"
    rest = f", without {unknown} layer(s) of unknown size" if unknown else ""
    return change(card.cost.bops, units.number) + rest


def evaluation_rows(card: CardData) -> list[tuple[str, str]]:
    """Accuracy and agreement, as far as evaluated."""
    found = card.evaluation
    if not found:
        return [("accuracy", "not evaluated")]
    against = found.get("against") or {}
    rows: list[tuple[str, str]] = []
    for key, label in (("top1", "top-1"), ("top5", "top-5")):
        after, before = found.get(key), against.get(key)
        if after is None:
            continue
        error = found.get(f"{key}_error")
        text = (
            f"{units.percent(before)} float → {units.percent(after)} quantized"
            if before is not None
            else units.percent(after)
        )
        rows.append((label, text + (f" (± {100 * error:.2f} points)" if error is not None else "")))
    if against.get("agreement") is not None:
        rows.append(("agreement with float", units.percent(against["agreement"])))
    if against.get("kl") is not None:
        rows.append(("KL(float ‖ quantized)", f"{against['kl']:.4g} nats"))
    for name, error in (against.get("outputs") or {}).items():
        if isinstance(error, dict):
            sqnr = error.get("sqnr_db")
            rows.append((f"SQNR of {name}", "equal" if sqnr is None else f"{sqnr:.1f} dB"))
    if found.get("samples") is not None:
        data = found.get("data") or {}
        labelled = f", {found['labelled']} labelled" if found.get("labelled") else ""
        rows.append(("evaluated on", f"{found['samples']} samples{_of(data)}{labelled}"))
    return rows or [(key, str(value)) for key, value in found.items() if not isinstance(value, (dict, list))]


def data_text(use: DataUse) -> str:
    """One calibration data source as a phrase."""
    count = "an unknown number of" if use.samples is None else str(use.samples)
    if use.random:
        return f"RANDOM NUMBERS, {count} samples: the ranges are meaningless for real inputs"
    labels = "labelled, labels unused" if use.labelled else "unlabelled"
    noun = "synthetic samples" if use.synthetic else "samples"
    return f"{count} {noun}{_of({'kind': use.kind, 'name': use.name})}, {labels}"


def _of(data: Any) -> str:
    if not isinstance(data, dict) or not data.get("kind"):
        return ""
    name = data.get("name")
    return f" of {name} ({data['kind']})" if name else f" ({data['kind']})"


def inline(value: Any) -> str:
    """A value of JSON types on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} = {inline(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return "[" + ", ".join(inline(v) for v in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
