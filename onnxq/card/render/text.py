"""A card in a few lines."""

from __future__ import annotations

from onnxq.card import units
from onnxq.card.render.phrases import bit_operations_text, change, counts, data_text, evaluation_rows, widths
from onnxq.card.schema import CardData
from onnxq.errors import printable

DETAILS = ("top-5", "KL(float ‖ quantized)")  # only in the full card


def summary(card: CardData) -> str:
    """The model, its savings, its data and its accuracy."""
    done, of = counts(card)
    weights, activations = widths(card)
    lines = [
        f"{card.pretrained.name} for {card.profile.name}: {done} of {of} layers in integers, weights {weights} bits, "
        f"activations {activations} bits",
        f"size {change(card.cost.file_bytes)}, bit operations {bit_operations_text(card)}",
        f"calibrated by {card.method.activations.clipping} on {'; '.join(map(data_text, card.resources.data)) or '?'}",
    ]
    if card.resources.seconds is not None:
        memory = units.size(card.resources.peak_rss_bytes)
        lines.append(f"took {units.seconds(card.resources.seconds)}, peak memory {memory}")
    if card.lowering is not None:
        operators, islands = sum(card.lowering.operators.values()), len(card.lowering.islands)
        lines.append(
            f"{operators} integer operators, "
            + (f"{islands} operator(s) left in float" if islands else "no float operator between them")
        )
    if card.proof is not None and card.proof.runs:
        lines.append(card.proof.summary())
    if card.evaluation:
        lines.append("; ".join(f"{label} {text}" for label, text in evaluation_rows(card) if label not in DETAILS))
    if card.random_data:
        lines.append("WARNING: calibrated on RANDOM NUMBERS, not on data: use this model for tests only")
    return "\n".join(map(printable, lines))
