"""The main job in one call: float model in, calibrated QDQ or integer-only model and its card out."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx

from onnxq import pipeline
from onnxq.calibrate.ranges import parse_method
from onnxq.calibrate.runner import Progress
from onnxq.calibrate.statistics import Statistics
from onnxq.calibrate.store import load_statistics
from onnxq.card import Card, Effort, Made, Provenance, build_card, card_path, describe_float, embed
from onnxq.context import PassContext, silent
from onnxq.data.source import DataSource, input_specs, open_data
from onnxq.errors import ConfigError, ModelError
from onnxq.execution import save
from onnxq.graph import files
from onnxq.graph.model import Model, load, to_proto
from onnxq.graph.walk import all_graphs
from onnxq.lowered import lower
from onnxq.pipeline import PassReport
from onnxq.placement.settings import (
    DEFAULT_CALIBRATION,
    DEFAULT_FIRST_LAST_BITS,
    QuantSettings,
    load_config,
    load_search_record,
    parse_overrides,
)
from onnxq.profiles.schema import Profile, load_profile
from onnxq.recipes import quantize_pipeline

if TYPE_CHECKING:
    from onnxq.measure.evaluation import Evaluation


@dataclass
class Quantized:
    """A quantized model and what it cost. reports: one a pass, in order."""

    graph_model: Model
    card: Card
    statistics: Statistics | None = None
    reports: list[PassReport] = field(default_factory=list)

    @property
    def model(self) -> onnx.ModelProto:
        """The QDQ or integer-only model, with the card in its metadata."""
        return to_proto(self.graph_model)

    def save(self, path: str | Path) -> None:
        """Validate and write the model, and its card beside it (`.card.json`). Raises ModelError or OutputError."""
        target = files.check_writable(path)
        card = files.check_writable(card_path(target))
        save.save(self.graph_model, target, beside={card.name: self.card.to_json()})

    def evaluate(self, against: Any, data: Any, **options: Any) -> Evaluation:
        """Accuracy and agreement with the float model `against` on `data`, which also goes into the card."""
        from onnxq.measure.accuracy import evaluate

        result = evaluate(self.graph_model, data, against=against, **options)
        self.card = self.card.with_evaluation(result.to_dict())
        embed(self.graph_model, self.card)
        return result


def quantize(
    source: str | Path | bytes | onnx.ModelProto | Model,
    data: Any = None,
    *,
    profile: str | Path | Profile = "onnxruntime-cpu",
    calibration: str = DEFAULT_CALIBRATION,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    first_last_bits: int | None = DEFAULT_FIRST_LAST_BITS,
    weight_range: Literal["max", "mse"] | None = None,
    overrides: Mapping[str, Any] | str | Path | None = None,
    exclude: Sequence[str] = (),
    op_types: Sequence[str] | None = None,
    preprocess: Any = None,
    limit: int | None = None,
    random_data: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    statistics: Statistics | str | Path | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    resume: str | Path | None = None,
    requantize: bool = False,
    qdq: bool = False,
    verify: bool = False,
    save_after: tuple[str, str | Path] | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = silent,
    on_report: Callable[[PassReport], None] | None = None,
) -> Quantized:
    """Quantize a float ONNX model for a hardware profile.

    source: path, bytes, ModelProto, or a loaded Model, which is changed in place. data: samples to calibrate on: a path
    (images, .npz, test_data_set_*), an iterable of {input name: array}, an object with get_next(), or an open
    DataSource; or random_data = N samples.
    profile: a built-in name, a .toml path or a Profile. calibration: "max", "percentile:P", "entropy" or "mse".
    weight_bits, activation_bits: 2 to 8; None takes the profile's. first_last_bits: of the first and last layers.
    weight_range: "max" or "mse" for weights; None is max at 8 bits, mse below. overrides: {"node or regex":
    {"weight_bits": 4, "activation_bits": 8} | "float"}, or a .toml/.json file of them. exclude: nodes (names or
    regular expressions) left float. statistics: of an earlier calibration, instead of data. requantize: strip
    Q/DQ first when the model has some. qdq: stop at the QDQ model also where the profile goes on to an integer-only
    one. verify: prove every value-preserving pass on inputs.
    Raises an OnnxqError that says what is wrong.
    """
    started = time.perf_counter()
    model = load(source)
    target = load_profile(profile)
    parse_method(calibration)
    record = None
    if isinstance(overrides, (str, Path)):
        per_node, record = load_config(overrides, model.sha256), load_search_record(overrides)
    else:
        per_node = parse_overrides(overrides or {})
    settings = QuantSettings(
        weight_bits,
        activation_bits,
        first_last_bits,
        calibration,
        weight_range,
        per_node,
        tuple(exclude),
        tuple(op_types) if op_types is not None else None,
    )
    _check_bits(target, settings)
    settings.check_names(
        (n.name for g in all_graphs(model.graph) for n in g.nodes),
        (n.op for n in model.graph.nodes),
        str(overrides) if isinstance(overrides, (str, Path)) else "overrides",
    )
    _check_quantized(model, requantize)
    samples = _open(model, data, preprocess, limit, random_data, seed, shapes, statistics)
    if isinstance(samples, DataSource) and samples.kind == "random":
        say("warning: calibrating on RANDOM data: the ranges mean nothing for real inputs; the card says so")
    ctx = PassContext(
        model,
        target,
        settings,
        samples,
        load_statistics(statistics, model.sha256) if isinstance(statistics, (str, Path)) else statistics,
        say=say,
        options={"batch_size": batch_size, "threads": threads, "resume": resume, "progress": progress},
    )
    for note in (*model.notes, *(samples.notes if samples is not None else ())):
        say(note)
    before = describe_float(model, shapes)
    passes = quantize_pipeline(target, settings, profile, strip=requantize)
    reports = pipeline.run(model, passes, ctx, verify=verify, save_after=save_after, on_report=on_report)
    if ctx.placement is None or not (ctx.placement.layers or ctx.placement.points):
        reasons = {f.reason for f in ctx.placement.skipped} if ctx.placement else set()
        raise ModelError(
            f"{model.name}: nothing in it can be quantized for {target.name}: {'; '.join(sorted(reasons)[:3])}"
        )
    card = build_card(
        model,
        before,
        Made(target, settings, ctx.placement, pipeline.print_pipeline(passes), reports),
        Provenance(
            dict(ctx.statistics.provenance) if ctx.statistics is not None else {},
            samples.describe() if isinstance(samples, DataSource) else {},
            record,
        ),
        Effort(time.perf_counter() - started, peak_memory(), threads),
    )
    embed(model, card)
    if target.graph.lowered and not qdq:
        found = lower(model, verify=verify, say=say, on_report=on_report)
        card = found.card or card
        reports = [*reports, *found.reports]
    return Quantized(model, card, ctx.statistics, reports)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _check_bits(target: Profile, settings: QuantSettings) -> None:
    """What was asked for by number must be there, even where no layer of this model would show it."""
    if settings.weight_bits is not None:
        target.check_bits("weights", settings.weight_bits, "weight_bits")
    if settings.activation_bits is not None:
        target.check_bits("activations", settings.activation_bits, "activation_bits")
    ends = settings.first_last_bits
    if ends is not None and ends not in (DEFAULT_FIRST_LAST_BITS, *target.activations.bits):
        target.check_bits("weights", ends, "first_last_bits")


def _check_quantized(model: Model, requantize: bool) -> None:
    if requantize:
        return
    quantized = next((n for n in model.graph.nodes if n.op == "DequantizeLinear"), None)
    if quantized is not None:
        raise ModelError(
            f"{model.name} is quantized already (node {quantized.name}); quantize the float model, or strip this one "
            "first (--requantize, pass strip-qdq)"
        )


def _open(
    model: Model,
    data: Any,
    preprocess: Any,
    limit: int | None,
    random_data: int | None,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None,
    statistics: Any,
) -> DataSource | None:
    if isinstance(data, DataSource):
        return data
    if data is not None and random_data is not None:
        raise ConfigError("give data or random_data, not both")
    if data is None and random_data is None:
        if statistics is None:
            raise ConfigError(
                "no calibration data: give data, random_data = N, or statistics of an earlier calibration"
            )
        return None
    return open_data(
        data, input_specs(model.graph), preprocess=preprocess, limit=limit, random=random_data, seed=seed, shapes=shapes
    )


__all__ = ["Quantized", "quantize"]
