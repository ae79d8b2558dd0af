"""Section 3, "mixed precision": widths requested and used, and the memory of feature maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxq.card.assembly.run import Made
from onnxq.card.parts import Change, FeatureMapBytes, LayerRecord, Precision, WidthCount
from onnxq.cost.concrete_shapes import Shapes
from onnxq.cost.feature_maps import feature_maps


def precision(made: Made, layers: Sequence[LayerRecord], graph: gs.Graph, shapes: Shapes) -> Precision:
    """The section. layers: records of the layers. graph: the quantized one. shapes: of that graph."""
    settings, profile = made.settings, made.profile
    activations = Counter(point.format.bits for point in made.placement.points)
    return Precision(
        settings.weight_bits or profile.weights.bits[0],
        settings.activation_bits or profile.activations.bits[0],
        settings.first_last_bits,
        len(settings.overrides),
        _weight_widths(layers),
        tuple(WidthCount(bits, count) for bits, count in sorted(activations.items())),
        _feature_maps(graph, shapes),
    )


def _weight_widths(layers: Sequence[LayerRecord]) -> tuple[WidthCount, ...]:
    widths: dict[int, list[LayerRecord]] = {}
    for layer in layers:
        if layer.weight_bits is not None:
            widths.setdefault(layer.weight_bits, []).append(layer)
    return tuple(
        WidthCount(bits, len(rows), sum(r.parameters for r in rows), sum(r.macs or 0 for r in rows))
        for bits, rows in sorted(widths.items())
    )


def _feature_maps(graph: gs.Graph, shapes: Shapes) -> FeatureMapBytes | None:
    maps = feature_maps(graph, shapes)
    if maps is None:
        return None
    average = Change(*(round(v) for v in maps.average))
    return FeatureMapBytes(Change(*maps.largest), Change(*maps.peak), average, maps.count)
