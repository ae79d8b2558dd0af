"""Sensitivities of a model's layers by one of four methods, in one call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxq._version import __version__
from onnxq.calibrate.ranges import choose_range, parse_method
from onnxq.calibrate.runner import collect, interruptible
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.context import silent
from onnxq.cost.prepared import Prepared, Source, check_bits, prepare
from onnxq.data.source import DataSource, input_specs, open_data
from onnxq.errors import ConfigError
from onnxq.graph.axes import channel_axis
from onnxq.graph.match import constant_values
from onnxq.graph.model import to_proto
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weights import weight_qparams
from onnxq.placement.plan import LayerPlan, Point
from onnxq.placement.settings import DEFAULT_CALIBRATION
from onnxq.profiles.schema import Profile
from onnxq.search.cut import WEIGHT, Part, activation_part, weight_part
from onnxq.search.forward import MEMORY, Forward, Tensors
from onnxq.search.hessian import ROUNDS_MIN, HutchinsonOptions, traces
from onnxq.search.objective import Loss, Objective, find_objective
from onnxq.search.one_at_a_time import METRICS, Damage, Feeds, Metric, Progress, activation_feeds, damages
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from onnxq.search.state import State

Method = Literal["hessian", "one-at-a-time", "weight-error", "output-error"]
METHODS = ("hessian", "one-at-a-time", "weight-error", "output-error")
SAMPLES = 64  # unless the caller says how many
SAMPLES_MIN = 8  # that a time budget leaves
SECONDS_MIN = 1e-3


def measure_sensitivity(
    source: Source,
    data: Any = None,
    *,
    method: Method = "hessian",
    profile: str | Path | Profile = "onnxruntime-cpu",
    bits: Sequence[int] | None = None,
    activation_bits: Sequence[int] = (),
    loss: Loss = "auto",
    output: str | None = None,
    metric: Metric = "loss",
    labels: bool = False,
    options: HutchinsonOptions | None = None,
    weight_range: Literal["max", "mse"] | None = None,
    calibration: str = DEFAULT_CALIBRATION,
    exclude: Sequence[str] = (),
    preprocess: Any = None,
    limit: int | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    memory: int = MEMORY,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = silent,
) -> Sensitivity:
    """How much quantizing each layer costs, at each width.

    source: the float model; a Model given is prepared in place. data: samples, as for quantize, or an open DataSource;
    none for weight-error. method:
    * hessian: ½ · mean trace of the layer's Hessian · ‖Q_b(W) − W‖², half of HAWQ-V2's Ω (equation 2.11), which is the
      loss increase to second order.
    * one-at-a-time: what the model loses with only that layer quantized, by `metric`: loss (increase in nats, or of the
      squared error), accuracy (share of top-1 lost; of top classes moved, without labels), output-error (of the
      objective's tensors, squared, relative).
    * output-error: squared error of the layer's own output, relative. weight-error: of its weights, relative.
    bits: widths of weights, by default all that the profile takes. activation_bits: widths of activations, measured one
    at a time whatever the method (not with weight-error); none by default. loss, output: see find_objective.
    labels: one-at-a-time and second differences take the loss on labels, not on the float model's own outputs (which do
    as well: Garg et al. 2021, observation 7; the Gauss–Newton matrix is the same). weight_range, calibration: as for
    quantize. limit: samples, by default the first 64. memory: bytes of inner tensors kept at a time. resume: a state
    file that is continued if it exists and is kept up to date.
    Raises an OnnxqError that says what is wrong.
    """
    started = time.perf_counter()
    _check(method, metric, calibration, activation_bits)
    if method != "weight-error" and data is None:
        raise ConfigError(f"{method} needs data; only weight-error goes without")
    options = options or HutchinsonOptions()
    ready = prepare(source, profile, exclude)
    widths = check_bits(bits or ready.profile.weights.bits, ready.profile, "weights", "bits")
    others = check_bits(activation_bits, ready.profile, "activations", "activation_bits") if activation_bits else ()
    work = _Work(ready, widths, weight_range)
    created: dict[str, Any] = {
        "onnxq": __version__,
        "profile": ready.profile.name,
        "weight_range": weight_range or "max at 8 bits, mse below",
    }
    if method == "weight-error":
        return _finished(ready, method, [work.weight_error(layer) for layer in ready.layers], created, started)
    if limit is None and not isinstance(data, DataSource):
        limit = SAMPLES
    samples = open_data(data, input_specs(ready.model.graph), preprocess=preprocess, limit=limit)
    for note in samples.notes:
        say(note)
    objective = find_objective(ready.model, loss, output)
    identity = {
        "model": ready.model.sha256,
        "data": samples.describe(),
        "method": method,
        "profile": ready.profile.name,
        "layers": ready.layer_names(),
        "bits": [list(widths), list(others)],
        "objective": dataclasses.asdict(objective),
        "options": [batch_size, labels, calibration, weight_range],
        "probes": {k: v for k, v in dataclasses.asdict(options).items() if k != "budget"}
        if method == "hessian"
        else {},
    }
    with interruptible() as stop:
        run = _Run(work, samples, objective, State(resume, identity, stop), say, progress, started)
        how = {"batch_size": batch_size, "threads": threads, "memory": memory}
        entries = run.weights(method, options, metric, labels, how, created)
        if others:
            entries += run.activations(method, others, calibration, metric, labels, how)
            created["calibration"] = calibration
    created |= {"loss": objective.loss, "tensors": list(objective.tensors), "data": samples.describe()}
    return _finished(ready, method, entries, created, started)


def _finished(
    ready: Prepared, method: str, entries: list[LayerSensitivity], created: dict[str, Any], started: float
) -> Sensitivity:
    created["seconds"] = round(time.perf_counter() - started, 3)
    return Sensitivity(ready.model.sha256, ready.model.name, method, tuple(entries), created)


def _check(method: str, metric: str, calibration: str, activation_bits: Sequence[int]) -> None:
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: choose from {', '.join(METHODS)}")
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r}: choose from {', '.join(METRICS)}")
    if method == "weight-error" and activation_bits:
        raise ConfigError("weight-error looks at weights only; measure activations with another method")
    parse_method(calibration)


@dataclass(frozen=True)
class _Work:
    """The layers and how their weights are quantized."""

    ready: Prepared
    widths: tuple[int, ...]
    weight_range: Literal["max", "mse"] | None

    def values(self, layer: LayerPlan) -> NDArray[np.float32]:
        """A layer's weight."""
        found = constant_values(layer.weight)
        assert found is not None
        return np.asarray(found, np.float32)

    def quantized(self, layer: LayerPlan) -> dict[int, NDArray[np.float32]]:
        """Width → dequantized weights, as insert-qdq makes them (but for scales that a bias widens)."""
        w, axis = self.values(layer), channel_axis(layer.node) if layer.per_channel else None
        found = {}
        for bits in self.widths:
            fmt = self.ready.profile.weights.format(bits)
            found[bits] = fake_quantize(w, weight_qparams(w, fmt, axis, self.weight_range or _range(bits)))
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
        return LayerSensitivity(layer.node.name, "weights", relative, extra={"squared_error": _keys(errors)})


def _range(bits: int) -> str:
    return "max" if bits == 8 else "mse"


@dataclass(frozen=True)
class _Run:
    """One measurement on data."""

    work: _Work
    data: DataSource
    objective: Objective
    state: State
    say: Callable[[str], None]
    progress: Progress | None
    started: float

    def weights(
        self,
        method: str,
        options: HutchinsonOptions,
        metric: Metric,
        labels: bool,
        how: Mapping[str, Any],
        created: dict[str, Any],
    ) -> list[LayerSensitivity]:
        """One entry a layer."""
        model, layers = self.work.ready.model, {layer.node.name: layer for layer in self.work.ready.layers}
        proto = to_proto(model)
        own = method == "output-error"
        parts = {}
        for name, layer in layers.items():
            ends = (layer.node.outputs[0].name,) if own else self.objective.tensors
            parts[name] = weight_part(model, proto, name, layer.weight_index, ends)
        with Forward(model, parts, self.data, wanted=self.objective.tensors, **how) as forward:
            if method == "hessian":
                return self._hessian(forward, options, created)
            created |= {"samples": forward.samples} | ({} if own else {"metric": metric, "labels": labels})
            found = damages(
                forward,
                {name: partial(self._feeds, layer) for name, layer in layers.items()},
                None if own else self.objective,
                plain={name: partial(self._plain, layer) for name, layer in layers.items()},
                labels=labels,
                state=self.state,
                progress=self.progress,
            )
        return [_entry(name, found[name], "output-error" if own else metric) for name in layers]

    def _feeds(self, layer: LayerPlan) -> Feeds:
        return {bits: {WEIGHT: w} for bits, w in self.work.quantized(layer).items()}

    def _plain(self, layer: LayerPlan) -> Tensors:
        return {WEIGHT: self.work.values(layer)}

    def _hessian(self, forward: Forward, options: HutchinsonOptions, created: dict[str, Any]) -> list[LayerSensitivity]:
        layers = self.work.ready.layers
        created |= dataclasses.asdict(options)
        weights = {layer.node.name: self.work.values(layer) for layer in layers}
        squared = {layer.node.name: self.work.squared_errors(layer) for layer in layers}
        if options.budget is not None:  # what is left of it
            spent = time.perf_counter() - self.started
            options = dataclasses.replace(options, budget=max(options.budget - spent, SECONDS_MIN))
        self._fit_budget(forward, options)
        found = traces(forward, weights, self.objective, options, state=self.state, progress=self.progress)
        created["samples"] = forward.samples
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
                "squared_error": _keys(errors),
                "omega": _keys({bits: mean * e for bits, e in errors.items()}),
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
        """Fewer samples where the least number of probes with all of them would not fit the time budget."""
        kept = self.state.sections.get("samples")
        if isinstance(kept, int):
            forward.keep(kept)
        elif options.budget is not None:
            # Two runs a probe, of half of the model on average.
            needed = forward.samples * forward.seconds * len(forward.parts) * ROUNDS_MIN / forward.workers
            if needed > options.budget:
                before = forward.samples
                forward.keep(max(SAMPLES_MIN, int(before * options.budget / needed)))
                told = f"the time budget of {options.budget:g} s is enough for {forward.samples} of {before} samples"
                self.say(f"{told}; give more time (--budget) for all of them")
        self.state.sections["samples"] = forward.samples

    def activations(
        self, method: str, widths: Sequence[int], calibration: str, metric: Metric, labels: bool, how: Mapping[str, Any]
    ) -> list[LayerSensitivity]:
        """One entry for each set of activations that share a scale."""
        model, proto = self.work.ready.model, to_proto(self.work.ready.model)
        groups: dict[str, list[Point]] = {}
        for point in self.work.ready.placement.points:
            groups.setdefault(point.group or point.tensor.name, []).append(point)
        seen = self.work.ready.placement.observed()
        stats = collect(
            model, seen, self.data, batch_size=how["batch_size"], threads=how["threads"], progress=self.progress
        )
        own = method == "output-error"
        parts: dict[str, Part] = {}
        feeds = {}
        for key, points in groups.items():
            made = partial(self._grids, points[0], widths, stats, calibration)
            if own:
                for name in points[0].sources:
                    parts[name], feeds[name] = activation_part(model, proto, {name: None}, [name]), made
                continue
            readers = {p.tensor.name: None if p.whole else [(n.name, i) for n, i in p.edges] for p in points}
            parts[key], feeds[key] = activation_part(model, proto, readers, self.objective.tensors), made
        with Forward(model, parts, self.data, wanted=self.objective.tensors, **how) as forward:
            found = damages(
                forward,
                feeds,
                None if own else self.objective,
                labels=labels,
                state=self.state,
                section="activations",
                progress=self.progress,
            )
        entries = []
        for key, points in groups.items():
            total = {bits: Damage() for bits in widths}
            for name in points[0].sources if own else (key,):
                for bits, damage in found[name].items():
                    total[bits].add(damage)
            metric_used: Metric = "output-error" if own else metric if method == "one-at-a-time" else "loss"
            values, extra = _values(total, metric_used)
            node, readers_of = self._readers(points)
            tensors = tuple(p.tensor.name for p in points)
            entries.append(LayerSensitivity(node, "activations", values, {}, tensors, readers_of, extra))
        return entries

    def _grids(self, point: Point, widths: Sequence[int], stats: Statistics, calibration: str) -> Feeds:
        """Width → what rounds the point's tensors, with ranges as insert-qdq chooses them."""
        merged = TensorStatistics()
        for name in point.sources:
            merged.merge(stats[name])
        qparams: dict[int, QParams] = {}
        for bits in widths:
            fmt = self.work.ready.profile.activations.format(bits, point.nonnegative)
            low, high = choose_range(merged, calibration, fmt)
            qparams[bits] = qparams_from_range(max(low, 0.0) if point.nonnegative else low, high, fmt)
        return activation_feeds(qparams)

    def _readers(self, points: Sequence[Point]) -> tuple[str, tuple[str, ...]]:
        """The node that an entry goes under, and all that read the activations quantized, in topological order."""
        order = {id(node): i for i, node in enumerate(self.work.ready.model.graph.nodes)}
        nodes = {id(node): node for point in points for node, _ in point.edges}
        found = [node.name for node in sorted(nodes.values(), key=lambda n: order.get(id(n), -1))]
        made_by = points[0].tensor.inputs
        return found[0] if found else made_by[0].name if made_by else points[0].tensor.name, tuple(found)


def _entry(node: str, found: Mapping[int, Damage], metric: Metric) -> LayerSensitivity:
    values, extra = _values(found, metric)
    return LayerSensitivity(node, "weights", values, extra=extra)


def _values(found: Mapping[int, Damage], metric: Metric) -> tuple[dict[int, float], dict[str, Any]]:
    """Width → value, and what else was seen."""
    extra: dict[str, Any] = {}
    others: tuple[Metric, ...] = ("loss", "accuracy", "output-error")
    for name in others:
        if name != metric:
            extra[name.replace("-", "_")] = _keys({bits: damage.value(name) for bits, damage in found.items()})
    return {bits: damage.value(metric) for bits, damage in found.items()}, extra


def _keys(values: Mapping[int, float]) -> dict[str, float]:
    return {str(bits): value for bits, value in values.items()}
