"""A card in a few lines."""

from __future__ import annotations

from onnxq.card import units
from onnxq.card.schema import Card
from onnxq.card.sections import bit_operations_text, change, data_text, evaluation_rows

DETAILS = ("top-5", "KL(float ‖ quantized)")  # left to the whole card


def counts(card: Card) -> tuple[int, int]:
    """(layers in integers, layers that multiply matrices)."""
    products = [r for r in card.layers if r.macs != 0]
    return sum(r.action == "quantized" for r in products), len(products)


def widths(card: Card) -> tuple[str, str]:
    """Widths of the quantized weights and of the activations, as 4/8."""
    layers = [r for r in card.layers if r.action == "quantized" and r.macs != 0]
    weights = sorted({r.weight_bits for r in layers if r.weight_bits is not None})
    activations = sorted({c.bits for c in card.precision.activations})
    return tuple("/".join(map(str, found)) or "–" for found in (weights, activations))  # type: ignore[return-value]


def summary(card: Card) -> str:
    """What was made, what it saved, from which data, and how accurate it is."""
    done, of = counts(card)
    weights, activations = widths(card)
    lines = [
        f"{card.pretrained.name} for {card.profile.name}: {done} of {of} layers in integers, weights {weights} bits, "
        f"activations {activations} bits",
        f"size {change(card.cost.file_bytes)}, bit operations {bit_operations_text(card)}",
        f"calibrated by {card.method.activations.clipping} on {'; '.join(map(data_text, card.resources.data)) or '?'}",
        f"took {units.seconds(card.resources.seconds)}, peak memory {units.size(card.resources.peak_rss_bytes)}",
    ]
    if card.lowering is not None:
        operators, islands = sum(card.lowering.operators.values()), len(card.lowering.islands)
        lines.append(
            f"{operators} integer operators, "
            + (f"{islands} float operator(s) between them" if islands else "no float operator between them")
        )
    if card.evaluation:
        lines.append("; ".join(f"{label} {text}" for label, text in evaluation_rows(card) if label not in DETAILS))
    if card.random_data:
        lines.append("WARNING: calibrated on RANDOM NUMBERS, not on data: do not use this model for anything but tests")
    return "\n".join(lines)
