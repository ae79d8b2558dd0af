"""The chart of a card: one bar per layer, as rectangles for an SVG."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.card import units
from onnxq.card.parts import LayerRecord
from onnxq.card.render.phrases import change
from onnxq.card.schema import CardData

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
    """One row of bars, one per layer. top, base: its y range. top_label: the amount of a full bar."""

    title: str
    top: float
    base: float
    top_label: str
    bars: tuple[Bar, ...]


def chart(card: CardData) -> list[Lane]:
    """Bits, multiply-accumulates and bytes of every layer with a matrix product, in model order."""
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
    """(x, width) of a layer's bar; with narrow gaps if there is room."""
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
    shown = f"{what} in float" if bits > MAX_BITS else f"{what} {bits} bits"
    tip = f"{layer.name} ({layer.op}): {shown}{f': {layer.reason}' if layer.reason else ''}"
    return Bar(x, round(top + BITS_HEIGHT - height, 2), width, height, style, tip)


def _amount_bar(index: int, value: int, most: int, top: float, count: int, style: str, tip: str) -> Bar:
    x, width = _slot(index, count)
    height = round(max(AMOUNT_HEIGHT * value / most, MIN_VISIBLE if value else 0.0), 2)
    return Bar(x, round(top + AMOUNT_HEIGHT - height, 2), width, height, style, tip)
