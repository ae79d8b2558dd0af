"""What a placement says: the layers, the points that get Q/DQ, and what stays float."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import onnx_graphsurgeon as gs

from onnxq.graph.match import MatchFailure
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams
from onnxq.profiles.schema import Profile


@dataclass(frozen=True)
class LayerPlan:
    """A quantized layer with a constant weight, its format, and its bias with the (node, input index) that reads it."""

    node: gs.Node
    weight: gs.Tensor
    weight_index: int
    weight_format: QuantFormat
    per_channel: bool
    bias: gs.Tensor | None
    bias_reader: tuple[gs.Node, int]


@dataclass
class Point:
    """A tensor that gets Q/DQ.

    edges: (node, input index) of the readers that read the dequantized tensor. whole: every reader does.
    sources: names of the tensors whose values its range must cover (more than itself where scales are shared).
    """

    tensor: gs.Tensor
    format: QuantFormat
    nonnegative: bool
    edges: list[tuple[gs.Node, int]] = field(default_factory=list)
    whole: bool = False
    group: str = ""
    sources: tuple[str, ...] = ()


@dataclass
class Placement:
    """What goes where. actions: node name → "quantized", "passthrough", "fused" or "float".

    activation_qparams (by tensor), weight_qparams (by node) and widened (node → channels whose weight scale grew so
    that the int32 bias fits) are filled by insert-qdq.
    """

    profile: Profile
    layers: list[LayerPlan] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    constants: list[tuple[gs.Node, int, QuantFormat]] = field(default_factory=list)
    actions: dict[str, Literal["quantized", "passthrough", "fused", "float"]] = field(default_factory=dict)
    skipped: list[MatchFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    activation_qparams: dict[str, QParams] = field(default_factory=dict)
    weight_qparams: dict[str, QParams] = field(default_factory=dict)
    widened: dict[str, int] = field(default_factory=dict)

    def observed(self) -> list[str]:
        """Names of the tensors whose ranges are needed, without repeats, in graph order."""
        return list(dict.fromkeys(name for point in self.points for name in point.sources))
