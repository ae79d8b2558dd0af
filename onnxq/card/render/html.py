"""A card as one self-contained HTML page (card.html.j2): inline styles, images as SVG, no scripts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from onnxq.card import units
from onnxq.card.render.chart import LABEL_HEIGHT, MAX_BITS, chart
from onnxq.card.render.phrases import counts, evaluation_rows, knows_bit_operations, widths
from onnxq.card.render.sections import sections
from onnxq.card.schema import CardData
from onnxq.errors import printable

TEMPLATE = "card.html.j2"


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    detail: str
    part: float | None = None  # of the float model's, 0 to 1: drawn as a meter


def render(card: CardData) -> str:
    """The page."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable)
    source = (resources.files("onnxq.card.render") / TEMPLATE).read_text(encoding="utf-8")
    lanes = chart(card)
    return environment.from_string(source).render(
        card=card,
        units=units,
        sections=sections(card),
        tiles=tiles(card),
        lanes=lanes,
        chart_height=lanes[-1].base + LABEL_HEIGHT if lanes else 0,
        used_bits=sorted({b for r in card.layers for b in (r.weight_bits, r.activation_bits) if b and b <= MAX_BITS}),
        has_float=any((b or 0) > MAX_BITS for r in card.layers for b in (r.weight_bits, r.activation_bits)),
        most_macs=max((r.macs or 0 for r in card.layers), default=0),
        weight_text=widths(card)[0],
        activation_text=widths(card)[1],
    )


def _printable(value: object) -> object:
    """Names come from files that others wrote; texts of ours have no control characters either."""
    return printable(value) if type(value) is str else value


def _bit_operations(card: CardData) -> Tile:
    bops, unknown = card.cost.bops, len(card.pretrained.unknown_macs)
    if not knows_bit_operations(card):
        return Tile("bit operations", "unknown", "the model leaves sizes open")
    less = f", without {unknown} layer(s)" if unknown else ""
    before = f"from {units.number(bops.before)}{less}"
    return Tile("bit operations", units.number(bops.after), before, _part(bops.after, bops.before))


def tiles(card: CardData) -> list[Tile]:
    """The headline figures."""
    done, of = counts(card)
    size = card.cost.file_bytes
    found = [
        Tile("file size", units.size(size.after), f"from {units.size(size.before)}", _part(size.after, size.before)),
        _bit_operations(card),
        Tile("layers in integers", f"{done} of {of}", _float_detail(card)),
    ]
    maps = card.precision.feature_maps
    if maps is not None:
        peak = maps.peak
        found.append(
            Tile(
                "peak feature maps",
                units.size(peak.after),
                f"from {units.size(peak.before)}",
                _part(peak.after, peak.before),
            )
        )
    return [*found, _accuracy_tile(card)]


def _float_detail(card: CardData) -> str:
    count = len(card.float_nodes)
    return f"{count} node{'' if count == 1 else 's'} left in float" if count else "nothing left in float"


def _part(after: int, before: int) -> float | None:
    return min(after / before, 1.0) if before else None


def _accuracy_tile(card: CardData) -> Tile:
    found = card.evaluation or {}
    against = found.get("against") or {}
    if found.get("top1") is not None:
        before = against.get("top1")
        return Tile(
            "top-1 accuracy",
            units.percent(found["top1"]),
            f"float {units.percent(before)}" if before is not None else "",
        )
    if against.get("agreement") is not None:
        return Tile("agreement with float", units.percent(against["agreement"]), f"{found.get('samples', '?')} samples")
    rows = dict(evaluation_rows(card))
    if card.evaluation and rows:
        label, text = next(iter(rows.items()))
        return Tile(label, text, "")
    return Tile("accuracy", "–", "not evaluated")
