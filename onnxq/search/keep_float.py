"""Partial quantization: leaves the most sensitive layers in float to keep the accuracy (NVIDIA 2020, section 5.1).

Layers are ranked by sensitivity; the smallest number from the top is left in float with which the quantized model loses
no more than allowed. That number is found by bisection, which assumes that leaving one more layer in float never costs
accuracy; the returned result was evaluated, so it always meets the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq import api
from onnxq.calibrate.statistics import Statistics
from onnxq.cost.prepared import Prepared, prepare
from onnxq.cost.width_costs import BASE_BITS, ModelCosts, model_costs
from onnxq.data.options import DataOptions
from onnxq.errors import ConfigError, ModelError
from onnxq.graph.model import load, to_proto
from onnxq.placement.settings import DEFAULT_CALIBRATION, Override, QuantSettings
from onnxq.search.inputs import SearchInputs
from onnxq.search.result import LayerChoice, SearchResult
from onnxq.search.sensitivity import Sensitivity, load_sensitivity

if TYPE_CHECKING:
    from onnxq.measure.evaluation import Evaluation

FLOAT_BITS = 32
Measure = Callable[[int], float]


@dataclass(frozen=True)
class Trial:
    """One evaluation. left: number of layers in float. drop: accuracy lost, 0.01 for one point (see `dropped`)."""

    left: int
    drop: float


def fewest_in_float(
    inputs: SearchInputs, bits: int, max_drop: float, *, eval_data: Any = None, calibration: str = DEFAULT_CALIBRATION
) -> SearchResult:
    """Leave as few of the most sensitive layers in float as possible, such that the model loses at most `max_drop`.

    Of inputs.options only the profile is used. Raises ConfigError for sensitivities of another model or without a layer
    or the width, or if the drop is too large even with every layer in float.
    """
    started = time.perf_counter()
    samples, known = inputs.samples, inputs.sensitivity
    if samples is None or known is None:
        raise ConfigError("partial quantization needs data and sensitivities")
    if not isinstance(known, Sensitivity):
        known = load_sensitivity(known)
    model = load(inputs.source)
    proto, name, sha256 = to_proto(model), model.name, model.sha256
    prepared = prepare(model, inputs.profile)
    known.require_model(sha256, name)
    ranking = rank(known, prepared, bits)
    costs = model_costs(prepared, samples.shapes)
    statistics: list[Statistics | None] = []  # from the first trial, for all others

    def quantized(left: int) -> api.Quantized:
        overrides = {n: Override(keep_float=True) if i < left else Override(bits) for i, n in enumerate(ranking)}
        made = api.quantize(
            proto,
            DataOptions(shapes=samples.shapes) if statistics else samples,
            profile=inputs.profile,
            settings=QuantSettings(calibration=calibration, overrides=overrides),
            statistics=statistics[0] if statistics else None,
            run=inputs.run,
            qdq=True,
        )
        statistics.append(made.statistics)
        return made

    def drop(left: int) -> float:
        try:
            made = quantized(left)
        except ModelError:
            if left < len(ranking):
                raise
            return 0.0  # with no layer to quantize, this is the float model
        report = made.evaluate(
            proto,
            samples.data if eval_data is None else eval_data,
            preprocess=samples.preprocess,
            batch_size=inputs.run.batch_size,
            threads=inputs.run.threads,
        )
        lost = dropped(report)
        inputs.say(f"{left} of {len(ranking)} layers in float: loses {100 * lost:.2f} points")
        return lost

    left, trials = fewest(len(ranking), max_drop, drop)
    weights: dict[str, int | None] = dict.fromkeys(prepared.layer_names(), bits) | dict.fromkeys(ranking[:left])
    return _result(prepared, name, sha256, costs, known, weights, trials, max_drop, time.perf_counter() - started)


def rank(sensitivity: Sensitivity, prepared: Prepared, bits: int) -> list[str]:
    """Layers, most sensitive first. Raises ConfigError for one without a value at this width."""
    values = sensitivity.weights(bits)
    missing = [n for n in prepared.layer_names() if n not in values]
    if missing:
        raise ConfigError(
            f"the sensitivities ({sensitivity.method}) have no layer {missing[0]} at {bits} bits; run "
            f"`onnxq sensitivity --bits {bits}` for this model and profile"
        )
    return sorted(prepared.layer_names(), key=lambda n: -values[n])


def dropped(report: Evaluation) -> float:
    """Accuracy lost by the quantized model: top-1 with labels, else agreement. Raises ConfigError with neither."""
    against = report.against
    if against is not None and report.top1 is not None and against.top1 is not None:
        return float(against.top1 - report.top1)
    if against is not None and against.agreement is not None:
        return float(1.0 - against.agreement)
    raise ConfigError("partial quantization needs a classifier: there is neither top-1 nor agreement to keep")


def fewest(count: int, most: float, drop: Measure) -> tuple[int, list[Trial]]:
    """The smallest number of `count` layers with a drop of at most `most`, by bisection, and the trials."""
    trials: dict[int, float] = {}

    def fits(left: int) -> bool:
        if left not in trials:
            trials[left] = drop(left)
        return trials[left] <= most + 1e-12

    if fits(0):
        return 0, _trials(trials)
    if not fits(count):
        raise ConfigError(
            f"even with all {count} layers in float the model loses {100 * trials[count]:.2f} points, more than "
            f"{100 * most:g}: other operators are quantized as well; allow more or choose another profile"
        )
    low, high = 0, count  # low does not fit, high does
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high, _trials(trials)


def _trials(found: Mapping[int, float]) -> list[Trial]:
    return [Trial(left, lost) for left, lost in sorted(found.items())]


def _result(
    prepared: Prepared,
    name: str,
    sha256: str,
    costs: ModelCosts,
    sensitivity: Sensitivity,
    weights: Mapping[str, int | None],
    trials: Sequence[Trial],
    max_drop: float,
    seconds: float,
) -> SearchResult:
    values = {e.node: e.bits for e in sensitivity.of("weights")}
    layers = tuple(
        LayerChoice(
            c.node,
            c.op,
            c.shape,
            weights[c.node],
            BASE_BITS if weights[c.node] is not None else None,
            c.parameters,
            c.macs,
            values.get(c.node, {}),
        )
        for c in costs.layers
    )
    size = costs.other_bytes
    bops = costs.other_bops
    for c in costs.layers:
        bits = weights[c.node]
        size += c.weight_bytes(bits) if bits is not None else 4 * ((0 if c.shared else c.parameters) + c.biases)
        bops += (c.bops(bits or FLOAT_BITS, BASE_BITS if bits is not None else FLOAT_BITS) or 0) if c.macs else 0
    predicted = {"size": float(size)} | ({} if costs.unknown else {"bops": float(bops)})
    kept = next(t for t in trials if t.left == sum(b is None for b in weights.values()))
    return SearchResult(
        "partial",
        prepared.profile.name,
        name,
        sha256,
        {n: Override(b) if b is not None else Override(keep_float=True) for n, b in weights.items()},
        layers,
        predicted,
        costs.baseline(),
        (f"--max-drop {100 * max_drop:g}%",),
        sensitivity.method,
        None,
        {"drop": kept.drop, "left_float": kept.left, "trials": [[t.left, t.drop] for t in trials]},
        False,
        seconds,
        (f"{kept.left} of {len(layers)} layers stay in float; the model loses {100 * kept.drop:.2f} points",),
    )


__all__ = ["Trial", "dropped", "fewest", "fewest_in_float", "rank"]
