"""The weights of a model's layers at each width, and their quantization errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.cost.prepared import Prepared
from onnxq.graph.axes import channel_axis
from onnxq.graph.match import constant_values
from onnxq.numeric.formats import WeightRange, default_weight_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from onnxq.placement.plan import LayerPlan
from onnxq.search.sensitivity import LayerSensitivity


@dataclass(frozen=True)
class QuantizedWeights:
    """The layers, and their weights at each width."""

    ready: Prepared
    widths: tuple[int, ...]
    weight_range: WeightRange | None

    def values(self, layer: LayerPlan) -> NDArray[np.float32]:
        """A layer's weight."""
        found = constant_values(layer.weight)
        assert found is not None
        return np.asarray(found, np.float32)

    def quantized(self, layer: LayerPlan) -> dict[int, NDArray[np.float32]]:
        """Width → dequantized weights, as insert-qdq produces them (except for scales widened for a bias)."""
        w, axis = self.values(layer), channel_axis(layer.node) if layer.per_channel else None
        found = {}
        for bits in self.widths:
            fmt = self.ready.profile.weights.format(bits)
            found[bits] = fake_quantize(
                w, weight_qparams(w, fmt, axis, self.weight_range or default_weight_range(bits))
            )
        return found

    def squared_errors(self, layer: LayerPlan) -> dict[int, float]:
        """Width → ‖Q(W) − W‖²."""
        w = self.values(layer).astype(np.float64)
        return {bits: float(np.sum((q - w) ** 2)) for bits, q in self.quantized(layer).items()}

    def weight_error(self, layer: LayerPlan) -> LayerSensitivity:
        """‖Q(W) − W‖² / ‖W‖²."""
        errors = self.squared_errors(layer)
        signal = float(np.sum(self.values(layer).astype(np.float64) ** 2))
        relative = {bits: e / signal if signal else 0.0 for bits, e in errors.items()}
        return LayerSensitivity(layer.node.name, "weights", relative, extra={"squared_error": text_keys(errors)})


def text_keys(values: Mapping[int, float]) -> dict[str, float]:
    """Width → value with widths as text, as in JSON."""
    return {str(bits): value for bits, value in values.items()}
