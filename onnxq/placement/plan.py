"""What a placement says: the layers, the points that get Q/DQ, and what is left in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxq.graph.match import MatchFailure
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams
from onnxq.placement.rules import Action, Decision
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


@dataclass(frozen=True)
class Point:
    """A tensor that gets Q/DQ.

    edges: (node, input index) of the readers that read the dequantized tensor. whole: every reader does. group: the
    name of what shares its scale, "" where nothing does. sources: names of the tensors whose values its range must
    cover (more than itself where scales are shared).
    """

    tensor: gs.Tensor
    format: QuantFormat
    nonnegative: bool
    edges: tuple[tuple[gs.Node, int], ...] = ()
    whole: bool = False
    group: str = ""
    sources: tuple[str, ...] = ()


class ConstantPlan(NamedTuple):
    """A constant operand that gets the format of an activation."""

    node: gs.Node
    input_index: int
    format: QuantFormat


@dataclass(frozen=True)
class Placement:
    """What goes where.

    decisions: by node name, in graph order, nodes in bodies last. skipped: the reasons among them, in the order in
    which they were found. wide: by node name, the inputs that it reads in wide integers (T8); stored: those of them
    that are stored in 16 bits, which the points read too. activation_qparams (by tensor), weight_qparams (by node) and
    widened (node → channels whose weight scale grew so that the int32 bias fits) are empty until insert-qdq has chosen
    them.
    """

    profile: Profile
    layers: list[LayerPlan] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    constants: list[ConstantPlan] = field(default_factory=list)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    skipped: list[MatchFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wide: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stored: list[Point] = field(default_factory=list)
    activation_qparams: Mapping[str, QParams] = field(default_factory=dict)
    weight_qparams: Mapping[str, QParams] = field(default_factory=dict)
    widened: Mapping[str, int] = field(default_factory=dict)

    @property
    def actions(self) -> dict[str, Action]:
        """What becomes of each node, by its name."""
        return {name: decision.action for name, decision in self.decisions.items()}

    def observed(self) -> list[str]:
        """Names of the tensors whose ranges are needed, without repeats, in graph order."""
        return list(dict.fromkeys(name for point in (*self.stored, *self.points) for name in point.sources))
