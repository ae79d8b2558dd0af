"""Costs of each width, layer by layer: bytes, bit operations, measured seconds; and the model's feature maps.

* size: weights packed at their width, with their scales (float32), zero points (affine formats only) and int32 biases.
  The first and the last layer count like the others (Garg et al., observation 4), constants outside the layers at
  their stored size. Files are larger: ONNX stores 5- to 7-bit weights in a byte each, 2- and 3-bit ones in INT4
  (`stored_bytes`).
* BOPS: b_w · b_a · MACs (HAWQ-V3, section 3.4).
* feature maps: peak and average, with the activations packed at their width (Garg et al., section 2.3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxq.cost.activation_groups import ActivationGroup, activation_groups
from onnxq.cost.concrete_shapes import Shapes, concrete_shapes
from onnxq.cost.feature_maps import PlannedMaps, planned_maps
from onnxq.cost.layer_costs import FLOAT_BITS, bit_operations, layer_costs, totals
from onnxq.cost.prepared import Prepared
from onnxq.graph.axes import channel_axis

SCALE_BYTES = 4
BIAS_BYTES = 4
BASE_BITS = 8
Pair = tuple[int, int]  # (weight bits, activation bits)


@dataclass(frozen=True)
class LayerAtWidths:
    """One layer.

    parameters: number of weights. scales: number of their scales; zero_points: number of zero points that are not
    always 0. biases: number of biases; bias_scales: number of their scales. macs: multiply-accumulates, None if shapes
    are unknown. shared: an earlier layer has the same weight tensor, so these weights cost nothing extra. group: its
    activation group, "" without one. seconds: measured, by pair of widths.
    """

    node: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    scales: int
    zero_points: int
    biases: int
    bias_scales: int
    macs: int | None
    shared: bool
    group: str
    seconds: Mapping[Pair, float] = field(default_factory=dict)

    def weight_bytes(self, bits: int) -> int:
        """Bytes at this width, packed."""
        own = 0 if self.shared else _bytes(self.parameters, bits) + SCALE_BYTES * self.scales
        return own + (0 if self.shared else _bytes(self.zero_points, bits)) + BIAS_BYTES * self.biases

    def stored_bytes(self, bits: int) -> int:
        """Bytes in a QDQ file: codes and zero points of INT4 or INT8, scales of weights and of the bias."""
        stored = 4 if bits <= 4 else 8
        bias = BIAS_BYTES * self.biases + SCALE_BYTES * self.bias_scales
        if self.shared:
            return bias
        return bias + _bytes(self.parameters, stored) + _bytes(self.scales, stored) + SCALE_BYTES * self.scales

    def bops(self, weight_bits: int, activation_bits: int) -> int | None:
        """b_w · b_a · MACs; None if the MACs are unknown."""
        return bit_operations(self.macs, weight_bits, activation_bits)


@dataclass(frozen=True)
class ModelCosts:
    """Costs of a model under any assignment.

    groups: activation groups. other_bytes: constants outside the layers. other_bops: of products outside the layers, at
    8 bits where the profile quantizes them. unknown: layers without known MACs. maps: feature maps, None where shapes
    are unknown. overhead: seconds of a run outside the layers; None where latency was not measured. assumed:
    notes on input shapes that were assumed. shapes: of the model's tensors.
    """

    layers: tuple[LayerAtWidths, ...]
    groups: tuple[ActivationGroup, ...]
    other_bytes: int
    other_bops: int
    unknown: tuple[str, ...]
    maps: PlannedMaps | None
    overhead: float | None = None
    assumed: tuple[str, ...] = ()
    shapes: Shapes | None = None

    def of(self, weights: Mapping[str, int], activations: Mapping[str, int] | None = None) -> dict[str, float]:
        """The totals: size, stored (bytes), bops, latency (seconds), peak, largest, average (bytes of maps).

        weights: {layer: bits}; activations: {group: bits}, 8 by default. Unknown costs are omitted.
        """
        widths = activations or {}
        found: dict[str, float] = {
            "size": self.other_bytes + sum(c.weight_bytes(weights[c.node]) for c in self.layers),
            "stored": self.other_bytes + sum(c.stored_bytes(weights[c.node]) for c in self.layers),
        }
        if not self.unknown:
            each = (c.bops(weights[c.node], widths.get(c.group, BASE_BITS)) or 0 for c in self.layers)
            found["bops"] = self.other_bops + sum(each)
        if self.maps is not None:
            found |= {"peak": self.maps.peak(widths), "largest": self.maps.largest(widths)}
            found["average"] = self.maps.average(widths)
        if self.overhead is not None:
            pairs = ((c, weights[c.node], widths.get(c.group, BASE_BITS)) for c in self.layers)
            found["latency"] = self.overhead + sum(c.seconds[w, a] for c, w, a in pairs)
        return found

    def baseline(self) -> dict[str, float]:
        """Totals with int8 weights and activations, the reference of relative limits."""
        return self.of({c.node: BASE_BITS for c in self.layers})


def model_costs(prepared: Prepared, input_shapes: Mapping[str, Sequence[int]] | None = None) -> ModelCosts:
    """Costs of the layers of a prepared model, without latency.

    input_shapes: {input name: dims} where the model leaves them open; an open batch is assumed to be 1.
    """
    graph, placement = prepared.model.graph, prepared.placement
    shapes: Shapes = concrete_shapes(graph, input_shapes)
    maps = planned_maps(graph, shapes, placement)
    groups = activation_groups(placement, maps.same_width if maps is not None else ())
    if maps is not None:
        maps = dataclasses.replace(maps, groups={t: g.name for g in groups for t in g.tensors})
    group_of = {node: g.name for g in groups for node in g.nodes}
    counted = {c.name: c for c in layer_costs(graph, shapes) if not c.body}
    layers, seen = [], set()
    inside = 0  # float bytes of the layers' constants
    for layer in placement.layers:
        name, shape = layer.node.name, tuple(int(d) for d in layer.weight.shape)
        axis = channel_axis(layer.node) if layer.per_channel else None
        scales = 1 if axis is None else shape[axis]
        biases = math.prod(layer.bias.shape) if layer.bias is not None else 0
        shared = id(layer.weight) in seen
        seen.add(id(layer.weight))
        inside += 4 * ((0 if shared else math.prod(shape)) + biases)
        affine = scales if not layer.weight_format.symmetric else 0
        layers.append(
            LayerAtWidths(
                name,
                layer.node.op,
                shape,
                math.prod(shape),
                scales,
                affine,
                biases,
                min(scales, biases) if prepared.profile.bias == "int32" else 0,
                counted[name].macs if name in counted else None,
                shared,
                group_of.get(name, ""),
            )
        )
    names = {c.node for c in layers}
    other = 0
    for cost in counted.values():
        if cost.name in names or cost.macs is None:
            continue
        width = BASE_BITS if placement.actions.get(cost.name) == "quantized" else FLOAT_BITS
        other += bit_operations(cost.macs, width, width) or 0
    total = totals(graph, counted.values())
    return ModelCosts(
        tuple(layers),
        tuple(groups),
        max(total.size - inside, 0),
        other,
        tuple(c.node for c in layers if c.macs is None),
        maps,
        assumed=shapes.assumed,
        shapes=shapes,
    )


def _bytes(count: int, bits: int) -> int:
    return (count * bits + 7) // 8


__all__ = ["BASE_BITS", "LayerAtWidths", "ModelCosts", "Pair", "model_costs"]
