"""One measurement of sensitivities on data: of weights by any method, of activations one at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.runner import collect
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.cost.prepared import Prepared
from onnxq.data.options import RunOptions
from onnxq.data.source import DataSource
from onnxq.graph.model import to_proto
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.placement.plan import LayerPlan, Point
from onnxq.reporting import Reporter
from onnxq.search.checkpoint import State
from onnxq.search.downstream import WEIGHT, Part, activation_part, grid_names, layer_part, weight_part
from onnxq.search.float_runs import Forward, Tensors
from onnxq.search.hessian import ROUNDS_MIN, HutchinsonOptions, traces
from onnxq.search.objective import Objective
from onnxq.search.one_at_a_time import Damage, Feeds, Metric, damages, grid_feeds
from onnxq.search.options import SensitivityOptions
from onnxq.search.sensitivity import Kind, LayerSensitivity
from onnxq.search.weights import QuantizedWeights, text_keys

SAMPLES_MIN = 8  # smallest number to which a time budget may reduce them
SECONDS_MIN = 1e-3


@dataclass(frozen=True)
class Measurement:
    """One measurement on data.

    started: time.perf_counter at the start. created: receives a record of what was done, for the file.
    """

    what: SensitivityOptions
    quantized: QuantizedWeights
    data: DataSource
    objective: Objective
    run: RunOptions
    state: State
    reporter: Reporter
    started: float
    created: dict[str, Any]

    def weight_entries(self) -> list[LayerSensitivity]:
        """One entry per layer."""
        layers = {layer.node.name: layer for layer in self.ready.layers}
        model, proto = self.ready.model, to_proto(self.ready.model)
        own, what = self.what.own_output, self.what
        parts = {}
        for name, layer in layers.items():
            ends = (layer.node.outputs[0].name,) if own else self.objective.tensors
            parts[name] = weight_part(model, proto, name, layer.weight_index, ends)
        with self._forward(parts) as forward:
            if what.chosen == "hessian":
                return self._hessian(forward)
            self.created["samples"] = forward.samples
            if not own:
                self.created.update(metric=what.metric, labels=what.labels)
            found = damages(
                forward,
                {name: partial(self._feeds, layer) for name, layer in layers.items()},
                None if own else self.objective,
                plain={name: partial(self._plain, layer) for name, layer in layers.items()},
                labels=what.labels,
                state=self.state,
                progress=self.reporter.progress,
            )
        return [_entry(name, "weights", found[name], "output-error" if own else what.metric) for name in layers]

    def layer_entries(self) -> list[LayerSensitivity]:
        """One entry per layer, its weights and its inputs quantized together."""
        layers = {layer.node.name: layer for layer in self.ready.layers}
        model, proto, what = self.ready.model, to_proto(self.ready.model), self.what
        stats = self._statistics()
        parts, feeds = {}, {}
        for name, layer in layers.items():
            points = self._inputs_of(layer)
            parts[name] = layer_part(model, proto, name, layer.weight_index, tuple(points), self.objective.tensors)
            feeds[name] = partial(self._layer_feeds, layer, points, stats)
        with self._forward(parts) as forward:
            self.created.update(samples=forward.samples, metric=what.metric, labels=what.labels)
            found = damages(
                forward,
                feeds,
                self.objective,
                labels=what.labels,
                state=self.state,
                section="layers",
                progress=self.reporter.progress,
            )
        return [_entry(name, "layer", found[name], what.metric) for name in layers]

    def _inputs_of(self, layer: LayerPlan) -> dict[int, Point]:
        """Input index → point, for the inputs that the layer reads quantized."""
        found = {}
        for point in self.ready.placement.points:
            edges = {(id(node), i) for node, i in point.edges}
            for i, tensor in enumerate(layer.node.inputs):
                if tensor is point.tensor and (point.whole or (id(layer.node), i) in edges):
                    found[i] = point
        return found

    def _layer_feeds(self, layer: LayerPlan, points: Mapping[int, Point], stats: Statistics) -> Feeds:
        grids: dict[str, NDArray] = {}
        for i, point in points.items():
            grids |= grid_feeds(self._qparams(point, point.format, stats), grid_names(i))
        return {bits: {WEIGHT: w, **grids} for bits, w in self.quantized.quantized(layer).items()}

    def _statistics(self) -> Statistics:
        """Of every tensor that the profile quantizes."""
        calibration = dataclasses.replace(self.run, resume=None)  # that file belongs to the state
        names = self.ready.placement.observed()
        return collect(self.ready.model, names, self.data, calibration, self.reporter.progress)

    @property
    def ready(self) -> Prepared:
        """The prepared model."""
        return self.quantized.ready

    def _forward(self, parts: Mapping[str, Part]) -> Forward:
        return Forward(
            self.ready.model, parts, self.data, self.run, memory=self.what.memory, wanted=self.objective.tensors
        )

    def _feeds(self, layer: LayerPlan) -> Feeds:
        return {bits: {WEIGHT: w} for bits, w in self.quantized.quantized(layer).items()}

    def _plain(self, layer: LayerPlan) -> Tensors:
        return {WEIGHT: self.quantized.values(layer)}

    def _hessian(self, forward: Forward) -> list[LayerSensitivity]:
        layers, options = self.ready.layers, self.what.traces
        self.created.update(dataclasses.asdict(options))
        weights = {layer.node.name: self.quantized.values(layer) for layer in layers}
        squared = {layer.node.name: self.quantized.squared_errors(layer) for layer in layers}
        if options.budget is not None:  # the remainder of it
            spent = time.perf_counter() - self.started
            options = dataclasses.replace(options, budget=max(options.budget - spent, SECONDS_MIN))
        self._fit_budget(forward, options)
        found = traces(forward, weights, self.objective, options, state=self.state, progress=self.reporter.progress)
        self.created["samples"] = forward.samples
        entries = []
        for layer in layers:
            probes, errors = found[layer.node.name], squared[layer.node.name]
            size = weights[layer.node.name].size
            mean = max(probes.trace, 0.0) / size
            extra = {
                "mean_trace": probes.trace / size,
                "trace": probes.trace,
                "trace_standard_error": probes.standard_error,
                "trace_sampling_error": probes.sampling_error,
                "probes": probes.rounds,
                "parameters": size,
                "squared_error": text_keys(errors),
                "omega": text_keys({bits: mean * e for bits, e in errors.items()}),
            }
            entries.append(
                LayerSensitivity(
                    layer.node.name,
                    "weights",
                    {bits: 0.5 * mean * e for bits, e in errors.items()},
                    {bits: 0.5 * probes.standard_error / size * e for bits, e in errors.items()},
                    extra=extra,
                )
            )
        return entries

    def _fit_budget(self, forward: Forward, options: HutchinsonOptions) -> None:
        """Use fewer samples if the minimum number of probes with all of them would exceed the time budget."""
        kept = self.state.sections.get("samples")
        if isinstance(kept, int):
            forward.keep(kept)
        elif options.budget is not None:
            # Two runs per probe, of half of the model on average.
            needed = forward.samples * forward.seconds * len(forward.parts) * ROUNDS_MIN / forward.workers
            if needed > options.budget:
                before = forward.samples
                forward.keep(max(SAMPLES_MIN, int(before * options.budget / needed)))
                enough = f"the time budget of {options.budget:g} s allows {forward.samples} of {before} samples"
                self.reporter.say(f"{enough}; allow more time (--budget) for all of them")
        self.state.sections["samples"] = forward.samples

    def activation_entries(self, widths: Sequence[int]) -> list[LayerSensitivity]:
        """One entry for each set of activations that share a scale."""
        model, proto = self.ready.model, to_proto(self.ready.model)
        own, what = self.what.own_output, self.what
        groups: dict[str, list[Point]] = {}
        for point in self.ready.placement.points:
            groups.setdefault(point.group or point.tensor.name, []).append(point)
        stats = self._statistics()
        parts: dict[str, Part] = {}
        feeds = {}
        for key, points in groups.items():
            made = partial(self._grids, points[0], widths, stats)
            if own:
                for name in points[0].sources:
                    parts[name], feeds[name] = activation_part(model, proto, {name: None}, [name]), made
                continue
            readers = {p.tensor.name: None if p.whole else [(n.name, i) for n, i in p.edges] for p in points}
            parts[key], feeds[key] = activation_part(model, proto, readers, self.objective.tensors), made
        with self._forward(parts) as forward:
            found = damages(
                forward,
                feeds,
                None if own else self.objective,
                labels=what.labels,
                state=self.state,
                section="activations",
                progress=self.reporter.progress,
            )
        entries = []
        for key, points in groups.items():
            total = {bits: Damage() for bits in widths}
            for name in points[0].sources if own else (key,):
                for bits, damage in found[name].items():
                    total[bits].add(damage)
            metric: Metric = "output-error" if own else what.metric if what.chosen == "one-at-a-time" else "loss"
            values, extra = _values(total, metric)
            node, readers_of = self._readers(points)
            tensors = tuple(p.tensor.name for p in points)
            entries.append(LayerSensitivity(node, "activations", values, {}, tensors, readers_of, extra))
        return entries

    def _grids(self, point: Point, widths: Sequence[int], stats: Statistics) -> Feeds:
        """Width → feeds that round the point's tensors."""
        formats = {bits: self.ready.profile.activations.format(bits, point.nonnegative) for bits in widths}
        return {bits: grid_feeds(self._qparams(point, fmt, stats)) for bits, fmt in formats.items()}

    def _qparams(self, point: Point, fmt: QuantFormat, stats: Statistics) -> QParams:
        """Parameters of a point, with the range as insert-qdq chooses it."""
        merged = TensorStatistics()
        for name in point.sources:
            merged.merge(stats[name])
        low, high = choose_range(merged, self.what.calibration, fmt)
        return qparams_from_range(max(low, 0.0) if point.nonnegative else low, high, fmt)

    def _readers(self, points: Sequence[Point]) -> tuple[str, tuple[str, ...]]:
        """The node under which an entry is listed, and all that read the activations quantized, in graph order."""
        order = {id(node): i for i, node in enumerate(self.ready.model.graph.nodes)}
        nodes = {id(node): node for point in points for node, _ in point.edges}
        found = [node.name for node in sorted(nodes.values(), key=lambda n: order.get(id(n), -1))]
        made_by = points[0].tensor.inputs
        return found[0] if found else made_by[0].name if made_by else points[0].tensor.name, tuple(found)


def _entry(node: str, kind: Kind, found: Mapping[int, Damage], metric: Metric) -> LayerSensitivity:
    values, extra = _values(found, metric)
    return LayerSensitivity(node, kind, values, extra=extra)


def _values(found: Mapping[int, Damage], metric: Metric) -> tuple[dict[int, float], dict[str, Any]]:
    """Width → value, and other observations."""
    extra: dict[str, Any] = {}
    others: tuple[Metric, ...] = ("loss", "accuracy", "output-error")
    for name in others:
        if name != metric:
            extra[name.replace("-", "_")] = text_keys({bits: damage.value(name) for bits, damage in found.items()})
    return {bits: damage.value(metric) for bits, damage in found.items()}, extra
