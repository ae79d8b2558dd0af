"""Partial quantization: leaves the most sensitive layers in float to keep the accuracy (NVIDIA 2020, section 5.1).

Layers are ranked by sensitivity, of the whole layer (weights and inputs) unless sensitivities of weights are given; the
smallest number from the top is left in float with which the quantized model loses no more than allowed. That number is
found by bisection, which assumes that leaving one more layer in float never costs accuracy; the returned result was
evaluated, so it always meets the limit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq import api
from onnxq.calibrate.statistics import Statistics
from onnxq.cost.prepared import prepare
from onnxq.cost.width_costs import BASE_BITS
from onnxq.data.options import DataOptions
from onnxq.errors import ConfigError, ModelError
from onnxq.graph.model import load, to_proto
from onnxq.placement.settings import DEFAULT_CALIBRATION, Override, QuantSettings
from onnxq.search.inputs import SearchInputs
from onnxq.search.result import LayerChoice, SearchResult
from onnxq.search.sensitivity import Sensitivity, load_sensitivity
from onnxq.search.space import Space, make_space

if TYPE_CHECKING:
    import onnx

    from onnxq.measure.evaluation import Evaluation

FLOAT_BITS = 32
KEPT = Override(keep_float=True)
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

    Without sensitivities, those of whole layers are measured on the samples. Of inputs.options, `fixed` and
    `first_last_bits` give layers that are always quantized, tied layers are left in float together, and `exclude` stays
    in float throughout. Raises ConfigError for sensitivities of another model or without a layer or the width, for
    activation widths, or if the drop is too large even with every layer in float.
    """
    started = time.perf_counter()
    samples = inputs.samples
    if samples is None:
        raise ConfigError("partial quantization needs data")
    options = dict(inputs.options)
    if options.pop("activation_bits", None) not in (None, (BASE_BITS,), [BASE_BITS]):
        raise ConfigError("method partial keeps activations at 8 bits (--activation-bits 8)")
    profile, exclude = inputs.profile, tuple(options.pop("exclude", ()))
    options.pop("profile", None)
    model = load(inputs.source, inputs.run.custom_ops)
    proto, name, sha256 = to_proto(model), model.name, model.sha256
    prepared = prepare(model, profile, exclude)
    space = make_space(prepared, bits=(bits,), **{**options, "shapes": samples.shapes or options.get("shapes")})
    known = _sensitivity(inputs, samples, proto, bits, calibration, exclude, sha256, name)
    units = rank(known, space, bits)
    statistics: list[Statistics | None] = []  # from the first trial, for all others

    def quantized(left: int) -> api.Quantized:
        overrides = {n: Override(b) if b is not None else KEPT for n, b in _weights(space, units, left, bits).items()}
        made = api.quantize(
            proto,
            DataOptions(shapes=samples.shapes) if statistics else samples,
            profile=profile,
            settings=QuantSettings(calibration=calibration, overrides=overrides, exclude=exclude),
            statistics=statistics[0] if statistics else None,
            run=inputs.run,
            qdq=True,
            proof="none",
        )
        statistics.append(made.statistics)
        inputs.keep_statistics(statistics[0])
        return made

    def drop(left: int) -> float:
        try:
            made = quantized(left)
        except ModelError:
            if left < len(units):
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
        count = sum(map(len, units[:left]))
        inputs.say(f"{count} of {len(space.costs.layers)} layers in float: loses {100 * lost:.2f} points")
        return lost

    left, trials = fewest(len(units), max_drop, drop)
    counted = [Trial(sum(map(len, units[: t.left])), t.drop) for t in trials]
    weights = _weights(space, units, left, bits)
    return _result(space, name, sha256, known, weights, counted, max_drop, time.perf_counter() - started)


def _sensitivity(
    inputs: SearchInputs,
    samples: DataOptions,
    proto: onnx.ModelProto,
    bits: int,
    calibration: str,
    exclude: Sequence[str],
    sha256: str,
    name: str,
) -> Sensitivity:
    """The given sensitivities, checked, or those of whole layers measured now."""
    known = inputs.sensitivity
    if known is None:
        inputs.say("measuring the sensitivity of every layer, weights and inputs together")
        from onnxq.search.measure import measure_sensitivity

        found = measure_sensitivity(
            proto,
            samples,
            profile=inputs.profile,
            kind="layer",
            bits=(bits,),
            calibration=calibration,
            exclude=exclude,
            run=dataclasses.replace(inputs.run, resume=None),
        )
        return dataclasses.replace(found, model_sha256=sha256, model_name=name)
    if not isinstance(known, Sensitivity):
        known = load_sensitivity(known)
    known.require_model(sha256, name)
    if not known.with_inputs:
        inputs.say(
            "note: these sensitivities are of weights alone, and a layer in float keeps its inputs in float too; "
            "`onnxq sensitivity --kind layer`, or no --sensitivity, counts both"
        )
    return known


def rank(sensitivity: Sensitivity, space: Space, bits: int) -> list[tuple[str, ...]]:
    """Sets of layers that stay in float together, most sensitive first; layers with a fixed width are in none.

    Raises ConfigError for a layer without a value at this width.
    """
    values = sensitivity.at(bits)
    free = [c.node for c in space.costs.layers if c.node not in space.fixed]
    missing = [n for n in free if n not in values]
    if missing:
        raise ConfigError(
            f"the sensitivities ({sensitivity.method}) have no layer {missing[0]} at {bits} bits; run "
            f"`onnxq sensitivity --bits {bits}` for this model and profile"
        )
    sets: dict[str, list[str]] = {}
    for name in free:
        sets.setdefault(space.ties[name], []).append(name)
    return sorted(map(tuple, sets.values()), key=lambda names: -sum(values[n] for n in names))


def _weights(space: Space, units: Sequence[Sequence[str]], left: int, bits: int) -> dict[str, int | None]:
    """Layer → width of its weights, None in float, with the first `left` sets in float."""
    found: dict[str, int | None] = {c.node: space.fixed.get(c.node, bits) for c in space.costs.layers}
    return found | dict.fromkeys((n for names in units[:left] for n in names), None)


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
    space: Space,
    name: str,
    sha256: str,
    sensitivity: Sensitivity,
    weights: Mapping[str, int | None],
    trials: Sequence[Trial],
    max_drop: float,
    seconds: float,
) -> SearchResult:
    values, costs, prepared = sensitivity.by_layer, space.costs, space.prepared
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
        {n: Override(b) if b is not None else KEPT for n, b in weights.items()} | prepared.left_out(),
        layers,
        predicted,
        costs.baseline(),
        (f"--max-drop {100 * max_drop:g}%",),
        sensitivity.method + (", layers with their inputs" if sensitivity.with_inputs else ""),
        None,
        {"drop": kept.drop, "left_float": kept.left, "trials": [[t.left, t.drop] for t in trials]},
        False,
        seconds,
        (f"{kept.left} of {len(layers)} layers stay in float; the model loses {100 * kept.drop:.2f} points",),
    )


__all__ = ["Trial", "dropped", "fewest", "fewest_in_float", "rank"]
