"""Quantization in one call: float model in, calibrated QDQ or integer-only model and its card out."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import onnx

from onnxq import pipeline
from onnxq.calibrate.ranges import parse_chooser
from onnxq.calibrate.statistics import Statistics
from onnxq.calibrate.store import load_statistics
from onnxq.card import Card, Effort, Made, Provenance, build_card, card_path, describe_float, embed
from onnxq.context import PassContext
from onnxq.data.options import DataKeywords, DataOptions, RunKeywords, RunOptions, data_options
from onnxq.data.source import DataSource, input_specs, open_data
from onnxq.errors import ConfigError, ModelError
from onnxq.execution import save
from onnxq.graph import files
from onnxq.graph.match import is_own
from onnxq.graph.model import Model, copy_of, load, to_proto
from onnxq.graph.walk import all_graphs
from onnxq.measure.proof import ProofKeywords, ProofOptions, Subject, proven
from onnxq.placement.plan import Placement
from onnxq.placement.settings import (
    DEFAULT_FIRST_LAST_BITS,
    QuantSettings,
    SettingsKeywords,
    load_config,
    load_search_record,
)
from onnxq.profiles.schema import Profile, load_profile
from onnxq.recipes import OPSET, quantize_pipeline, require_convertible
from onnxq.records import check_keywords, refined
from onnxq.reporting import PassReport, Reporter, ReporterKeywords

if TYPE_CHECKING:
    from onnxq.measure.evaluation import Evaluation


@dataclass
class Quantized:
    """A quantized model and its card. reports: one per pass, in order."""

    graph_model: Model
    card: Card
    statistics: Statistics | None = None
    reports: list[PassReport] = field(default_factory=list)

    @property
    def model(self) -> onnx.ModelProto:
        """The QDQ or integer-only model, with the card in its metadata."""
        return to_proto(self.graph_model)

    def save(self, path: str | Path) -> None:
        """Validate and write the model, and its card next to it (`.card.json`). Raises ModelError or OutputError."""
        target = files.check_writable(path)
        card = files.check_writable(card_path(target))
        save.save(self.graph_model, target, beside={card.name: self.card.to_json()})

    def evaluate(self, against: Any, data: Any, **options: Any) -> Evaluation:
        """Accuracy and agreement with the float model `against` on `data`; the result is also added to the card."""
        from onnxq.measure.accuracy import evaluate

        result = evaluate(self.graph_model, data, against=against, **options)
        self.card = self.card.with_evaluation(result.to_dict())
        embed(self.graph_model, self.card)
        return result


class QuantizeKeywords(SettingsKeywords, DataKeywords, RunKeywords, ReporterKeywords, ProofKeywords, total=False):
    """Options that quantize accepts as keywords."""


def quantize(
    source: str | Path | bytes | onnx.ModelProto | Model,
    data: Any = None,
    *,
    profile: str | Path | Profile = "onnxruntime-cpu",
    settings: QuantSettings | None = None,
    statistics: Statistics | str | Path | None = None,
    run: RunOptions | None = None,
    reporter: Reporter | None = None,
    proving: ProofOptions | None = None,
    requantize: bool = False,
    qdq: bool = False,
    verify: bool = False,
    save_after: tuple[str, str | Path] | None = None,
    **keywords: Unpack[QuantizeKeywords],
) -> Quantized:
    """Quantize a float ONNX model for a hardware profile.

    source: path, bytes, ModelProto, or a loaded Model, which is changed in place. data: samples to calibrate on: a path
    (images, .npz, test_data_set_*), an iterable of {input name: array}, an object with get_next(), an open DataSource,
    or DataOptions. profile: a built-in name, a .toml path or a Profile. settings: bits, calibration, overrides and
    exclusions. statistics: of an earlier calibration, instead of data. run: threads, batch size and the file to resume
    from. reporter: callbacks for reports. requantize: strip existing Q/DQ first. qdq: stop at the QDQ model even if the
    profile produces an integer-only one. verify: check every value-preserving pass on inputs.
    save_after: (pass name, path): save the model after that pass as well. proving: how the product is proven, which
    runs it on a few samples as its target will (onnxq.measure.proof); findings are said, and in the card.

    Any field of these objects can be given as a keyword instead, which overrides the object:
    * of QuantSettings: weight_bits and activation_bits (2 to 8; None uses the profile's), first_last_bits (of the
      first and last layers), calibration ("max", "percentile:P", "entropy" or "mse"), weight_range ("max" or "mse";
      None is default_weight_range), overrides ({"node or regex": {"weight_bits": 4, "activation_bits": 8} | "float"},
      or a .toml/.json file of them), exclude (nodes left in float, names or regular expressions), op_types (the only
      operators to quantize).
    * of DataOptions: preprocess, limit, random_data (N random samples instead of data), seed, shapes;
      and for the card synthetic (the samples are made, not recorded), training_samples (in one epoch of the training).
    * of RunOptions: threads, batch_size, resume, custom_ops (libraries of operators; what depends on an operator that
      is in none of them stays in float).
    * of Reporter: say, on_report, progress.
    * of ProofOptions: proof ("quick", "full" or "none"), strict (findings are errors), min_sqnr (in dB, of every float
      output; less is an error).
    Raises ProofError for a product that fails its proof if it must not, and otherwise an OnnxqError that describes the
    problem.
    """
    started = time.perf_counter()
    check_keywords("quantize", keywords, QuantizeKeywords)
    samples_from = data_options(data, keywords)
    run = refined(run or RunOptions(), keywords)
    reporter = refined(reporter or Reporter(), keywords)
    proving = refined(proving or ProofOptions(), keywords)
    model = load(source, run.custom_ops)
    target = load_profile(profile)
    settings, record = _settings(model, target, settings or QuantSettings(), keywords)
    _check_quantized(model, requantize)
    samples = _open(model, samples_from, statistics)
    if samples is not None and samples.kind == "random":
        reporter.say("warning: calibrating on RANDOM data: the ranges mean nothing for real inputs; the card says so")
    known = load_statistics(statistics, model.sha256) if isinstance(statistics, (str, Path)) else statistics
    ctx = PassContext(model, target, settings, samples, known, run=run, reporter=reporter)
    for note in (*model.notes, *(samples.notes if samples is not None else ())):
        reporter.say(note)
    shapes = samples_from.shapes
    before = describe_float(model, shapes)
    reference = copy_of(model) if proving.proof != "none" else None
    passes = quantize_pipeline(target, settings, profile, strip=requantize)
    if target.graph.lowered and not qdq:
        require_convertible(model.graph, OPSET)  # what lowering needs: better refused before calibration than after it
    reports = pipeline.run(model, passes, ctx, verify=verify, save_after=save_after)
    card = build_card(
        model,
        before,
        Made(target, settings, _placement(ctx), pipeline.print_pipeline(passes), reports),
        Provenance(
            dict(ctx.statistics.provenance) if ctx.statistics is not None else {},
            samples.describe() if samples is not None else {},
            record,
            samples_from.synthetic,
            samples_from.training_samples,
        ),
        Effort(time.perf_counter() - started, peak_memory(), run.threads),
    )
    embed(model, card)
    subject = None
    if reference is not None:
        subject = Subject(reference, model, runtime=target.runtime, weight_bits=target.weights.bits)
    if target.graph.lowered and not qdq:
        from onnxq.lowered import lower

        wide = copy_of(model) if reference is not None else None
        found = lower(model, verify=verify, reporter=reporter, card=card, proof="none")
        card = found.card or card
        reports = [*reports, *found.reports]
        if subject is not None:
            subject = replace(subject, qdq=wide, integer_only=not found.inside())
    if subject is not None:
        card = card.with_proof(proven(subject, samples, proving, reporter))
        embed(model, card)
    return Quantized(model, card, ctx.statistics, reports)


def _settings(
    model: Model, target: Profile, settings: QuantSettings, keywords: Mapping[str, Any]
) -> tuple[QuantSettings, dict[str, Any] | None]:
    """The settings with the keywords applied, checked against model and profile; and the search record, if any."""
    where, record = "overrides", None
    if "overrides" in keywords:
        overrides = keywords["overrides"] or {}
        if isinstance(overrides, (str, Path)):
            where, record = str(overrides), load_search_record(overrides)
            overrides = load_config(overrides, model.sha256)
        keywords = {**keywords, "overrides": overrides}
    settings = refined(settings, keywords)
    parse_chooser(settings.calibration)
    _check_bits(target, settings)
    settings.check_names(
        (n.name for g in all_graphs(model.graph) for n in g.nodes), (n.op for n in model.graph.nodes), where
    )
    return settings, record


def _placement(ctx: PassContext) -> Placement:
    """Where insert-qdq put Q/DQ. Raises ModelError if nothing was quantized."""
    found = ctx.placement
    if found is not None and (found.layers or found.points):
        return found
    reasons = "; ".join(sorted({f.reason for f in found.skipped} if found is not None else ())[:3])
    target = ctx.profile.name if ctx.profile is not None else ""
    raise ModelError(f"{ctx.model.name}: nothing in it can be quantized for {target}: {reasons}")


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _check_bits(target: Profile, settings: QuantSettings) -> None:
    """The target must support the requested widths, even if no layer of this model uses them."""
    if settings.weight_bits is not None:
        target.check_bits("weights", settings.weight_bits, "weight_bits")
    if settings.activation_bits is not None:
        target.check_bits("activations", settings.activation_bits, "activation_bits")
    ends = settings.first_last_bits
    if ends is not None and ends not in (DEFAULT_FIRST_LAST_BITS, *target.activations.bits):
        target.check_bits("weights", ends, "first_last_bits")


def _check_quantized(model: Model, requantize: bool) -> None:
    own = next((n for g in all_graphs(model.graph) for n in g.nodes if is_own(n)), None)
    if own is not None:
        raise ModelError(
            f"{model.name} is already lowered to integers (node {own.name}, {own.op} of com.onnxq); quantize the float "
            "or QDQ model that it was made from"
        )
    if requantize:
        return
    quantized = next((n for n in model.graph.nodes if n.op == "DequantizeLinear"), None)
    if quantized is not None:
        raise ModelError(
            f"{model.name} is already quantized (node {quantized.name}); quantize the float model, or strip this one "
            "first (--requantize, pass strip-qdq)"
        )


def _open(model: Model, data: DataOptions, statistics: Any) -> DataSource | None:
    if isinstance(data.data, DataSource):
        return data.data
    if data.data is not None and data.random_data is not None:
        raise ConfigError("give either data or random_data, not both")
    if data.data is None and data.random_data is None:
        if statistics is None:
            raise ConfigError(
                "no calibration data: give data (--data), a number of random samples (--random-data), or statistics of "
                "an earlier calibration (--stats)"
            )
        return None
    return open_data(data, input_specs(model.graph))


__all__ = ["Quantized", "quantize"]
