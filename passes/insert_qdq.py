"""Put QuantizeLinear/DequantizeLinear where the profile wants them, with integer weights and biases behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from ml_dtypes import int4, uint4
from numpy.typing import NDArray

from onnxq.calibrate.masks import ScoreRanges
from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.context import PassContext
from onnxq.errors import PostconditionError, PreconditionError
from onnxq.graph import marks
from onnxq.graph.axes import channel_axis, out_channels
from onnxq.graph.match import MatchFailure, Names, constant_values, consumers, is_constant, is_float, producer
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import quantize
from onnxq.numeric.weights import fit_bias, quantize_bias, weight_qparams
from onnxq.pipeline import Pass, PassResult
from onnxq.placement.plan import LayerPlan, Placement, Point
from onnxq.placement.planner import plan
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile

OPSET_PER_CHANNEL = 13
OPSET_INT4 = 21
# Metadata of what has fewer bits than its type: the Clip before an 8-bit QuantizeLinear, a weight's DequantizeLinear.


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
        target, settings = resolve(self.profile, ctx)
        placement = plan(graph, target, settings)
        need = needed_opset(target, placement)
        if graph.opset < need:
            raise PreconditionError(
                f"the model has opset {graph.opset}, needed is {need}: run convert-opset{{version={need}}}"
            )
        if ctx.statistics is None and placement.observed():
            raise PreconditionError("no activation statistics: run calibrate before, or load a statistics file")
        missing = [n for n in placement.observed() if n not in (ctx.statistics or ())]
        if missing:
            raise PreconditionError(
                f"the statistics do not cover tensor {missing[0]} ({len(missing)} missing): they were made for another "
                "profile or another model; run calibrate again"
            )

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Place, quantize weights and biases, and leave what was decided in ctx.placement."""
        target, settings = resolve(self.profile, ctx)
        placement = plan(graph, target, settings)
        scores = ScoreRanges(graph, ctx.statistics or Statistics())
        ranges = _ranges(placement, scores, ctx, self.calibration or settings.calibration)
        _limit_masks(graph, scores, {id(p.tensor) for p in placement.points})
        editor = _Editor(graph, placement, settings)
        for point in placement.points:
            editor.insert_point(point, ranges[point.group or point.tensor.name])
        for node, index, fmt in placement.constants:
            editor.quantize_operand(node, index, fmt)
        editor.quantize_layers()
        if target.graph.lowered:
            editor.quantize_tables()
        editor.finish()
        if editor.changed or ctx.placement is None:
            ctx.placement = placement
        notes = [*placement.notes, *editor.notes]
        return PassResult(editor.changed, tuple(placement.skipped) + tuple(editor.skipped), tuple(notes))

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


def needed_opset(profile: Profile, placement: Placement) -> int:
    """The lowest opset that can express the formats: 13 for per-channel Q/DQ, 21 for INT4 weights."""
    int4_weights = any(layer.weight_format.bits <= 4 for layer in placement.layers)
    return max(profile.limits.opset_min, OPSET_INT4 if int4_weights else OPSET_PER_CHANNEL)


def storage_type(fmt: QuantFormat, narrowest: int = 8) -> np.dtype:
    """The numpy type that holds the codes: 8 bits, or (with narrowest=4) 4 where the format fits in."""
    if fmt.bits <= narrowest == 4:
        return np.dtype(int4 if fmt.signed else uint4)
    return np.dtype(np.int8 if fmt.signed else np.uint8)


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


def _limit_masks(graph: gs.Graph, scores: ScoreRanges, quantized: set[int]) -> None:
    """Constant masks of what is quantized go no deeper than they must, so that integers can hold them."""
    names = Names(graph)
    for node in graph.nodes:
        if not any(id(t) in quantized for t in node.outputs):
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


class _Editor:
    """Collects the new nodes next to where they belong and writes them into the graph at the end."""

    def __init__(self, graph: gs.Graph, placement: Placement, settings: QuantSettings) -> None:
        self.graph, self.placement, self.settings = graph, placement, settings
        self.names = Names(graph)
        self.before: dict[int, list[gs.Node]] = {}
        self.after: dict[int, list[gs.Node]] = {}
        self.front: list[gs.Node] = []
        self.activations: dict[int, QParams] = {}  # of a node's data input
        self.notes: list[str] = []
        self.skipped: list[MatchFailure] = []
        self.changed = 0

    def insert_point(self, point: Point, qparams: QParams) -> None:
        """Q/DQ behind a tensor, and the readers that the placement names moved to the dequantized one."""
        source = point.tensor
        base = source.name
        readers = list(point.edges)
        if point.whole:
            readers = [(n, i) for n in consumers(source) for i, t in enumerate(n.inputs) if t is source]
        is_output = point.whole and any(t is source for t in self.graph.outputs)
        made_by = source.inputs[0] if source.inputs else None
        if is_output and made_by is not None:
            source = self._rename_output(point, made_by)
        scale = self._constant(f"{base}_scale", qparams.scale)
        zero_point = self._constant(f"{base}_zero_point", qparams.zero_point.astype(storage_type(qparams.format)))
        chain: list[gs.Node] = []
        entry = source
        if qparams.format.bits < 8:
            low, high = qparams.real_range()
            bounds = [
                self._constant(f"{base}_clip_{k}", np.asarray(v, np.float32)) for k, v in (("min", low), ("max", high))
            ]
            clipped = self._variable(f"{base}_clipped", np.float32, source.shape)
            clip = self._node("Clip", f"{base}_Clip", [source, *bounds], clipped)
            marks.BITS.set(clip, qparams.format.bits)
            chain.append(clip)
            entry = clipped
        quantized = self._variable(f"{base}_quantized", storage_type(qparams.format), source.shape)
        quantize = self._node("QuantizeLinear", f"{base}_QuantizeLinear", [entry, scale, zero_point], quantized)
        marks.MADE_BY.set(quantize, "insert-qdq")
        chain.append(quantize)
        result = point.tensor if is_output else self._variable(f"{base}_dequantized", np.float32, source.shape)
        chain.append(self._node("DequantizeLinear", f"{base}_DequantizeLinear", [quantized, scale, zero_point], result))
        for node, index in readers:
            if node.inputs[index] is point.tensor:
                node.inputs[index] = result
        for node, index in readers:
            if index == 0:
                self.activations[id(node)] = qparams
        if made_by is None:
            self.front += chain
        else:
            self.after.setdefault(id(made_by), []).extend(chain)
        self.placement.activation_qparams[base] = qparams
        self.changed += 1

    def _rename_output(self, point: Point, made_by: gs.Node) -> gs.Tensor:
        """A graph output keeps its name: its producer writes a fresh tensor, and the Q/DQ writes the output."""
        tensor = point.tensor
        inner = self._variable(f"{tensor.name}_float", np.float32, tensor.shape)
        slot = next(i for i, t in enumerate(made_by.outputs) if t is tensor)
        made_by.outputs[slot] = inner
        return inner

    def quantize_operand(self, node: gs.Node, index: int, fmt: QuantFormat) -> None:
        """A constant operand of an elementwise operator: integers behind a per-tensor DequantizeLinear."""
        tensor = node.inputs[index]
        values = constant_values(tensor)
        assert values is not None
        qparams = qparams_from_range(values.min(), values.max(), fmt)
        node.inputs[index] = self._dequantized(node, tensor.name, values, qparams, storage_type(fmt))
        self.changed += 1

    def quantize_tables(self) -> None:
        """Constants of which an operator picks the values of a quantized tensor (embeddings): its codes."""
        for point in self.placement.points:
            node = producer(point.tensor)
            values = None if node is None else constant_values(node.inputs[0])
            if node is None or values is None or self.placement.actions.get(node.name) != "passthrough":
                continue
            qparams = self.placement.activation_qparams[point.tensor.name]
            if qparams.format.bits == 8 and is_float(node.inputs[0]):
                name = node.inputs[0].name
                node.inputs[0] = self._dequantized(node, name, values, qparams, storage_type(qparams.format))
                self.placement.weight_qparams[node.name] = qparams
                self.changed += 1

    def quantize_layers(self) -> None:
        """Integer weights and int32 biases of every layer; a weight shared by layers is stored once."""
        shared: dict[tuple[int, int | None, QuantFormat], list[LayerPlan]] = {}
        for layer in self.placement.layers:
            axis = channel_axis(layer.node) if layer.per_channel else None
            shared.setdefault((id(layer.weight), axis, layer.weight_format), []).append(layer)
        for (_, axis, fmt), layers in shared.items():
            values = constant_values(layers[0].weight)
            assert values is not None
            values = values.astype(np.float32)
            method = self.settings.weight_method(fmt.bits)
            qparams = weight_qparams(values, fmt, axis, method)
            biases = [self._bias_of(layer) for layer in layers]
            qparams = self._fit_biases(layers, biases, values, qparams)
            storage = storage_type(fmt, 4)
            dequantized = self._dequantized(layers[0].node, layers[0].weight.name, values, qparams, storage)
            for layer, bias in zip(layers, biases, strict=True):
                layer.node.inputs[layer.weight_index] = dequantized
                if bias is not None:
                    self._quantize_bias(layer, bias, qparams)
                self.placement.weight_qparams[layer.node.name] = qparams
                self.changed += 1

    def _bias_of(self, layer: LayerPlan) -> NDArray | None:
        """The bias to quantize, (channels,) or None where it stays as it is."""
        if layer.bias is None or self.placement.profile.bias != "int32":
            return None
        values = constant_values(layer.bias)
        reason = ""
        if values is None:
            reason = "its bias is computed at run time and stays float"
        elif layer.node.op == "Gemm" and (
            layer.node.attrs.get("alpha", 1.0) != 1.0 or layer.node.attrs.get("beta", 1.0) != 1.0
        ):
            reason = "alpha or beta is not 1, its bias stays float"
        elif values.size != out_channels(layer.node) or values.shape[-1:] != (values.size,):
            reason = "its bias is not one value a channel and stays float"
        elif not np.isfinite(values).all():
            reason = "its bias holds NaN or infinity and stays float"
        elif id(layer.node) not in self.activations:
            reason = "its input is not quantized, its bias stays float"
        if reason:
            self.skipped.append(MatchFailure(reason, layer.node.name))
            return None
        assert values is not None
        return values.reshape(-1).astype(np.float32)

    def _fit_biases(
        self, layers: list[LayerPlan], biases: list[NDArray | None], values: NDArray, qparams: QParams
    ) -> QParams:
        """Weight scales with which the int32 bias of every layer that has this weight fits."""
        settled = False
        for layer, bias in zip(layers, biases, strict=True):
            if bias is None:
                continue
            axis = channel_axis(layer.node)
            assert axis is not None
            channels = values.shape[axis]
            # Grouped ConvTranspose: channel m has the scale of m modulo M/group, so the largest bias of those decides.
            worst = np.abs(bias.reshape(-1, channels)).max(axis=0)
            zero = np.full(channels, not values.any())
            if qparams.axis is not None:
                zero = ~np.any(values, axis=tuple(i for i in range(values.ndim) if i != axis))
            if settled:
                zero[:] = False  # the first bias chose these scales: the others may only widen them
            x = self.activations[id(layer.node)]
            reach = max(x.format.qmax - int(x.zero_point), int(x.zero_point) - x.format.qmin)
            fit = fit_bias(qparams, zero, worst, float(x.scale), reach, values.size // channels)
            qparams, settled = fit.weight, True
            if fit.widened:
                self.placement.widened[layer.node.name] = len(fit.widened)
                told = f"weight scale widened in {len(fit.widened)} channel(s) so that the int32 bias fits"
                self.notes.append(f"{layer.node.name}: {told}")
        return qparams

    def _quantize_bias(self, layer: LayerPlan, bias: NDArray, qparams: QParams) -> None:
        assert layer.bias is not None
        if qparams.axis is not None and qparams.scale.size != bias.size:
            repeats = bias.size // qparams.scale.size
            qparams = QParams(np.tile(qparams.scale, repeats), np.tile(qparams.zero_point, repeats), qparams.format, 0)
        codes, scale = quantize_bias(bias, float(self.activations[id(layer.node)].scale), qparams)
        name, shape = layer.bias.name, layer.bias.shape
        attrs = {"axis": len(shape) - 1} if scale.ndim else {}
        inputs = [self._constant(f"{name}_quantized", codes.reshape(shape)), self._constant(f"{name}_scale", scale)]
        result = self._variable(f"{name}_dequantized", np.float32, list(shape))
        node = self._node("DequantizeLinear", f"{name}_DequantizeLinear", inputs, result, attrs)
        reader, index = layer.bias_reader
        self.before.setdefault(id(reader), []).append(node)
        reader.inputs[index] = result

    def _dequantized(
        self, node: gs.Node, name: str, values: NDArray, qparams: QParams, storage: np.dtype
    ) -> gs.Variable:
        codes = self._constant(f"{name}_quantized", quantize(values, qparams).astype(storage))
        scale = self._constant(f"{name}_scale", qparams.scale)
        zero_point = self._constant(f"{name}_zero_point", qparams.zero_point.astype(storage))
        result = self._variable(f"{name}_dequantized", np.float32, list(values.shape))
        attrs = {"axis": qparams.axis} if qparams.axis is not None else {}
        dq = self._node("DequantizeLinear", f"{name}_DequantizeLinear", [codes, scale, zero_point], result, attrs)
        if qparams.format.bits != (4 if storage.name.endswith("int4") else 8):
            marks.BITS.set(dq, qparams.format.bits)
        self.before.setdefault(id(node), []).append(dq)
        return result

    def finish(self) -> None:
        """Write the new nodes into the graph: beside what they belong to, the order of the others kept."""
        nodes = list(self.front)
        for node in self.graph.nodes:
            nodes += [*self.before.get(id(node), []), node, *self.after.get(id(node), [])]
        self.graph.nodes[:] = nodes

    def _constant(self, name: str, values: NDArray) -> gs.Constant:
        return gs.Constant(self.names.fresh(name), np.asarray(values))

    def _variable(self, name: str, dtype: object, shape: object) -> gs.Variable:
        return gs.Variable(self.names.fresh(name), dtype=np.dtype(dtype), shape=shape)  # type: ignore[call-overload]

    def _node(
        self, op: str, name: str, inputs: list[gs.Tensor], output: gs.Tensor, attrs: Mapping[str, object] | None = None
    ) -> gs.Node:
        return gs.Node(op, self.names.fresh(name), attrs=dict(attrs or {}), inputs=inputs, outputs=[output])


__all__ = ["InsertQdq", "is_constant", "needed_opset", "resolve", "storage_type"]
