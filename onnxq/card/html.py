"""A card as one self-contained HTML page (card.html.j2): styles inside, pictures as SVG, no scripts."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from onnxq.card import units
from onnxq.card.schema import Card, LayerRecord
from onnxq.card.sections import change, evaluation_rows, knows_bit_operations, sections
from onnxq.card.text import counts, widths

TEMPLATE = "card.html.j2"
CHART_WIDTH = 1000.0
LANE_GAP = 30.0
BITS_HEIGHT = 64.0
AMOUNT_HEIGHT = 48.0
LABEL_HEIGHT = 16.0
MAX_BITS = 8
MIN_VISIBLE = 1.0


@dataclass(frozen=True)
class Bar:
    """A rectangle of the chart, with its style class and tooltip."""

    x: float
    y: float
    width: float
    height: float
    style: str
    tip: str


@dataclass(frozen=True)
class Lane:
    """One row of bars over the layers. top, base: its y range. top_label: what a full bar stands for."""

    title: str
    top: float
    base: float
    top_label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    detail: str
    part: float | None = None  # of the float model's, 0 to 1: drawn as a meter


def render(card: Card) -> str:
    """The page."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("onnxq.card") / TEMPLATE).read_text(encoding="utf-8")
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


def _bit_operations(card: Card) -> Tile:
    bops, unknown = card.cost.bops, len(card.pretrained.unknown_macs)
    if not knows_bit_operations(card):
        return Tile("bit operations", "not known", "the model leaves sizes open")
    less = f", without {unknown} layer(s)" if unknown else ""
    before = f"from {units.number(bops.before)}{less}"
    return Tile("bit operations", units.number(bops.after), before, _part(bops.after, bops.before))


def tiles(card: Card) -> list[Tile]:
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


def _float_detail(card: Card) -> str:
    count = len(card.float_nodes)
    return f"{count} node{'' if count == 1 else 's'} left in float" if count else "nothing left in float"


def _part(after: int, before: int) -> float | None:
    return min(after / before, 1.0) if before else None


def _accuracy_tile(card: Card) -> Tile:
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


def chart(card: Card) -> list[Lane]:
    """Bits, multiply-accumulates and bytes of every layer that multiplies matrices, in the order of the model."""
    layers = [r for r in card.layers if r.macs != 0] or list(card.layers)
    if not layers:
        return []
    top = LABEL_HEIGHT
    lanes = []
    for title, kind in (("weight bits", "weight_bits"), ("activation bits", "activation_bits")):
        found = [_bits_bar(i, r, getattr(r, kind), kind, top, len(layers)) for i, r in enumerate(layers)]
        lanes.append(Lane(title, top, top + BITS_HEIGHT, f"{MAX_BITS} bits", tuple(b for b in found if b is not None)))
        top += BITS_HEIGHT + LANE_GAP
    most = max((r.macs or 0 for r in layers), default=0)
    if most:
        bars = [
            _amount_bar(i, r.macs or 0, most, top, len(layers), "amount", f"{r.name}: {units.number(r.macs)} MACs")
            for i, r in enumerate(layers)
        ]
        lanes.append(Lane("multiply-accumulates", top, top + AMOUNT_HEIGHT, units.number(most), tuple(bars)))
        top += AMOUNT_HEIGHT + LANE_GAP
    largest = max((max(r.size.before, r.size.after) for r in layers), default=0)
    if largest:
        pairs = []
        for i, r in enumerate(layers):
            tip = f"{r.name}: {change(r.size)}"
            pairs.append(_amount_bar(i, r.size.before, largest, top, len(layers), "before", tip))
            pairs.append(_amount_bar(i, r.size.after, largest, top, len(layers), "amount", tip))
        lanes.append(Lane("bytes, float and quantized", top, top + AMOUNT_HEIGHT, units.size(largest), tuple(pairs)))
    return lanes


def _slot(index: int, count: int) -> tuple[float, float]:
    """(x, width) of a layer's bar; narrow gaps while there is room for them."""
    pitch = CHART_WIDTH / count
    gap = min(3.0, pitch * 0.2)
    width = min(pitch - gap, 40.0)
    return round(index * pitch + (pitch - width) / 2, 2), round(width, 2)


def _bits_bar(index: int, layer: LayerRecord, bits: int | None, kind: str, top: float, count: int) -> Bar | None:
    if bits is None:
        return None
    x, width = _slot(index, count)
    style = "float" if bits > MAX_BITS else f"b{bits}"
    height = round(BITS_HEIGHT * min(bits, MAX_BITS) / MAX_BITS, 2)
    what = "weights" if kind == "weight_bits" else "activations"
    told = f"{what} in float" if bits > MAX_BITS else f"{what} {bits} bits"
    tip = f"{layer.name} ({layer.op}): {told}{f': {layer.reason}' if layer.reason else ''}"
    return Bar(x, round(top + BITS_HEIGHT - height, 2), width, height, style, tip)


def _amount_bar(index: int, value: int, most: int, top: float, count: int, style: str, tip: str) -> Bar:
    x, width = _slot(index, count)
    height = round(max(AMOUNT_HEIGHT * value / most, MIN_VISIBLE if value else 0.0), 2)
    return Bar(x, round(top + AMOUNT_HEIGHT - height, 2), width, height, style, tip)
