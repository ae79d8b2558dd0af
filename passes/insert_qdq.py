"""Put QuantizeLinear/DequantizeLinear where the profile wants them, and make weights and biases integers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.calibrate.masks import ScoreRanges
from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.context import PassContext
from onnxq.errors import PostconditionError, PreconditionError
from onnxq.graph.element_types import fill_types
from onnxq.graph.identity import IdentitySet
from onnxq.graph.match import Names, constant_values
from onnxq.graph.movement import anchor_int8
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.pipeline import Pass, PassResult
from onnxq.placement.insertion import Inserter
from onnxq.placement.plan import Placement, Point
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile

OPSET_PER_CHANNEL = 13
OPSET_NARROW_OR_WIDE = 21


@dataclass(frozen=True)
class InsertQdq(Pass):
    """Insert QuantizeLinear/DequantizeLinear where the hardware profile wants them.

    profile: name or path; empty takes the one the pipeline runs with. calibration: range chooser for activations;
    None takes the settings'. Needs statistics of the activations (the calibrate pass, or a statistics file).
    """

    name: ClassVar[str] = "insert-qdq"
    profile: str = ""
    calibration: str | None = None

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Statistics must cover the tensors, and the opset must know the types that will be written."""
        placement = planned(graph, ctx, self.profile)
        need = needed_opset(placement.profile, placement)
        if graph.opset < need:
            raise PreconditionError(
                f"the model has opset {graph.opset}, needed is {need}: run convert-opset{{version={need}}}"
            )
        if ctx.statistics is None and placement.observed():
            raise PreconditionError("no activation statistics: run calibrate first, or load a statistics file")
        missing = [n for n in placement.observed() if n not in (ctx.statistics or ())]
        if missing:
            raise PreconditionError(
                f"the statistics do not cover tensor {missing[0]} ({len(missing)} missing): they were made for another "
                "profile or another model; run calibrate again"
            )

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Place, quantize weights and biases, and leave what was decided in ctx.placement."""
        placement = planned(graph, ctx, self.profile)
        settings = ctx.settings or QuantSettings()
        scores = ScoreRanges(graph, ctx.statistics or Statistics())
        ranges = _ranges(placement, scores, ctx, self.calibration or settings.calibration)
        _limit_masks(graph, scores, IdentitySet(p.tensor for p in placement.points))
        inserter = Inserter(graph, placement, settings)
        for point in placement.stored:
            inserter.insert_stored(point, _stored_range(point, ctx))
        for point in placement.points:
            inserter.insert_point(point, ranges[point.group or point.tensor.name])
        for constant in placement.constants:
            inserter.quantize_operand(constant)
        inserter.quantize_layers()
        if placement.profile.graph.lowered:
            inserter.quantize_tables()
        inserter.finish()
        anchor_int8(graph)
        if inserter.changed or ctx.placement is None:
            ctx.placement = dataclasses.replace(
                placement,
                activation_qparams=inserter.activations,
                weight_qparams=inserter.weights,
                widened=inserter.widened,
            )
        notes = (*placement.notes, *inserter.notes)
        return PassResult(inserter.changed, (*placement.skipped, *inserter.skipped), notes)

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Every scale in the graph is a positive finite number."""
        for node in graph.nodes:
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                scale = constant_values(node.inputs[1])
                if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
                    raise PostconditionError(f"node {node.name} has a scale that is not positive and finite")


def resolve(profile: str, ctx: PassContext) -> tuple[Profile, QuantSettings]:
    """The profile and settings a pass runs with; the profile named in its options becomes the pipeline's."""
    if profile:
        ctx.profile = load_profile(profile)
    if ctx.profile is None:
        raise PreconditionError("no profile: give one as an option, {profile=NAME}")
    return ctx.profile, ctx.settings or QuantSettings()


def planned(graph: gs.Graph, ctx: PassContext, profile: str = "") -> Placement:
    """Where Q/DQ goes in the graph as it is. profile: as `resolve` takes it.

    Element types that follow from others are filled in first; the placement is computed once for a state of the graph.
    """
    target, settings = resolve(profile, ctx)
    fill_types(graph)
    return ctx.plans.get(graph, target, settings)


def needed_opset(profile: Profile, placement: Placement) -> int:
    """The lowest opset that can express the formats: 13 for per-channel Q/DQ, 21 for INT4 weights and 16 bits."""
    int4_weights = any(layer.weight_format.bits <= 4 for layer in placement.layers)
    newest = int4_weights or placement.stored
    return max(profile.limits.opset_min, OPSET_NARROW_OR_WIDE if newest else OPSET_PER_CHANNEL)


def _ranges(placement: Placement, scores: ScoreRanges, ctx: PassContext, method: str) -> dict[str, QParams]:
    """Scale and zero point for each point or group of points, by name."""
    members: dict[str, list[Point]] = {}
    for point in placement.points:
        members.setdefault(point.group or point.tensor.name, []).append(point)
    found: dict[str, QParams] = {}
    for key, points in members.items():
        stats, fmt = _statistics_of(points[0], ctx), points[0].format
        tensors = [p.tensor for p in points if scores.holds(p.tensor)]
        low, high = scores.choose(tensors, stats, method, fmt) if tensors else choose_range(stats, method, fmt)
        low = max(low, 0.0) if points[0].nonnegative else low
        found[key] = qparams_from_range(low, high, fmt)
    return found


def _stored_range(point: Point, ctx: PassContext) -> QParams:
    """Of sums that are stored in 16 bits: the whole range, since nothing needs to be clipped for a finer step."""
    low, high = choose_range(_statistics_of(point, ctx), "max", point.format)
    return qparams_from_range(low, high, point.format)


def _limit_masks(graph: gs.Graph, scores: ScoreRanges, quantized: IdentitySet[gs.Tensor]) -> None:
    """Constant masks of what is quantized go no deeper than they must, so that integers can hold them."""
    names = Names(graph)
    for node in graph.nodes:
        if not any(t in quantized for t in node.outputs):
            continue
        for i, tensor in enumerate(node.inputs):
            values = constant_values(tensor)
            lowest = None if values is None else scores.constant(node, tensor)
            if values is not None and lowest is not None:
                limited = np.asarray(np.maximum(values, lowest))
                node.inputs[i] = gs.Constant(names.fresh(f"{tensor.name}_limited"), limited)


def _statistics_of(point: Point, ctx: PassContext) -> TensorStatistics:
    assert ctx.statistics is not None
    first, *others = (ctx.statistics[name] for name in point.sources)
    if not others:
        return first
    merged = TensorStatistics()
    for part in (first, *others):
        merged.merge(part)
    return merged
