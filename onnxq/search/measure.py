"""Sensitivities of a model's layers by one of four methods, in one call."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Unpack

from onnxq._version import __version__
from onnxq.calibrate.runner import interruptible
from onnxq.cost.prepared import Prepared, Source, check_bits, prepare
from onnxq.data.options import RunOptions, data_options
from onnxq.data.source import DataSource, input_specs, open_data
from onnxq.errors import ConfigError
from onnxq.graph.model import load
from onnxq.graph.randomness import draws
from onnxq.numeric.formats import DEFAULT_WEIGHT_RANGE
from onnxq.profiles.schema import Profile
from onnxq.records import check_keywords, refined
from onnxq.reporting import Reporter
from onnxq.search.checkpoint import State
from onnxq.search.hessian import HutchinsonOptions
from onnxq.search.measurement import Measurement
from onnxq.search.objective import Objective, find_objective
from onnxq.search.options import SensitivityKeywords, SensitivityOptions
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from onnxq.search.weights import QuantizedWeights

SAMPLES = 64  # default number


def measure_sensitivity(
    source: Source,
    data: Any = None,
    *,
    profile: str | Path | Profile = "onnxruntime-cpu",
    measurement: SensitivityOptions | None = None,
    options: HutchinsonOptions | None = None,
    run: RunOptions | None = None,
    reporter: Reporter | None = None,
    **keywords: Unpack[SensitivityKeywords],
) -> Sensitivity:
    """Measure the cost in accuracy of quantizing each layer, at each width.

    source: the float model; a given Model is prepared in place. data: samples, as for quantize, or DataOptions; not
    needed for weight-error. By default the first 64 are used. measurement: the method, the widths and what is measured.
    options: how traces are estimated. run: threads, batch size and a state file to continue from. reporter: receives
    progress; on_report is not called.

    Any field of these objects can be given as a keyword instead, which takes precedence:
    * of SensitivityOptions: method ("hessian", "one-at-a-time", "weight-error", "output-error"), kind, bits,
      activation_bits, loss, output, metric, labels, weight_range, calibration, exclude, memory; see its docstring.
    * of DataOptions: preprocess, limit.
    * of RunOptions: threads, batch_size, resume, custom_ops. Of Reporter: say, progress.
    Raises an OnnxqError that states the problem.
    """
    started = time.perf_counter()
    check_keywords("measure_sensitivity", keywords, SensitivityKeywords)
    what = refined(measurement or SensitivityOptions(), keywords)
    what = dataclasses.replace(what, traces=options or what.traces)
    run = refined(run or RunOptions(), keywords)
    reporter = refined(reporter or Reporter(), keywords)
    given = data_options(data, keywords)
    if what.chosen != "weight-error" and given.data is None and given.random_data is None:
        raise ConfigError(f"{what.chosen} needs data; only weight-error does not")
    ready = prepare(load(source, run.custom_ops), profile, what.exclude)
    widths = check_bits(what.bits or ready.profile.weights.bits, ready.profile, "weights", "bits")
    others: tuple[int, ...] = ()
    if what.activation_bits:
        others = check_bits(what.activation_bits, ready.profile, "activations", "activation_bits")
    weights = QuantizedWeights(ready, widths, what.weight_range)
    created: dict[str, Any] = {
        "onnxq": __version__,
        "profile": ready.profile.name,
        "weight_range": what.weight_range or DEFAULT_WEIGHT_RANGE,
    }
    if what.chosen == "weight-error":
        return _finished(ready, what, [weights.weight_error(layer) for layer in ready.layers], created, started)
    if given.limit is None and not isinstance(given.data, DataSource):
        given = dataclasses.replace(given, limit=SAMPLES)
    samples = open_data(given, input_specs(ready.model.graph))
    for note in samples.notes:
        reporter.say(note)
    if draws(ready.model.graph):
        reporter.say("warning: the model draws random numbers: the sensitivities contain their noise")
    objective = find_objective(ready.model, what.loss, what.output)
    with interruptible() as stop:
        state = State(run.resume, _identity(ready, what, (widths, others), objective, samples, run), stop)
        measured = Measurement(what, weights, samples, objective, run, state, reporter, started, created)
        entries = measured.layer_entries() if what.kind == "layer" else measured.weight_entries()
        if others:
            entries += measured.activation_entries(others)
        if others or what.kind == "layer":
            created["calibration"] = what.calibration
    created |= {"loss": objective.loss, "tensors": list(objective.tensors), "data": samples.describe()}
    return _finished(ready, what, entries, created, started)


def _identity(
    ready: Prepared,
    what: SensitivityOptions,
    widths: tuple[tuple[int, ...], tuple[int, ...]],
    objective: Objective,
    samples: DataSource,
    run: RunOptions,
) -> dict[str, Any]:
    """The settings that must match when a state file is continued. widths: of weights and activations."""
    probes = {k: v for k, v in dataclasses.asdict(what.traces).items() if k != "budget"}
    return {
        "model": ready.model.sha256,
        "data": samples.describe(),
        "method": what.chosen,
        "kind": what.kind,
        "profile": ready.profile.name,
        "layers": ready.layer_names(),
        "bits": [list(w) for w in widths],
        "objective": dataclasses.asdict(objective),
        "options": [run.batch_size, what.labels, what.calibration, what.weight_range],
        "probes": probes if what.chosen == "hessian" else {},
    }


def _finished(
    ready: Prepared,
    what: SensitivityOptions,
    entries: list[LayerSensitivity],
    created: dict[str, Any],
    started: float,
) -> Sensitivity:
    seconds = time.perf_counter() - started
    return Sensitivity(ready.model.sha256, ready.model.name, what.chosen, tuple(entries), created, seconds)


__all__ = ["SensitivityOptions", "measure_sensitivity"]
