"""A card as titled rows of text, shared by Markdown and HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxq.card import units
from onnxq.card.parts import Lowering, NumberFormat, SearchRecord, WidthCount
from onnxq.card.render.phrases import change, data_text, evaluation_rows, inline
from onnxq.card.schema import CardData
from onnxq.measure.proof.record import Proof, ProofOutput, ProofRun

MAX_SHAPES = MAX_OUTPUTS = 4


@dataclass(frozen=True)
class Section:
    """One section of the card. rows: (label, text). marked: labels of rows to be emphasized."""

    title: str
    rows: tuple[tuple[str, str], ...]
    marked: tuple[str, ...] = ()


def sections(card: CardData) -> list[Section]:
    """The sections in the order of Garg et al., followed by those that onnxq adds."""
    return [
        _model(card),
        _method(card),
        _operations(card),
        _precision(card),
        *([_lowering(card.lowering)] if card.lowering is not None else []),
        *([_proof(card.proof)] if card.proof is not None else []),
        _resources(card),
        _provenance(card),
    ]


def _model(card: CardData) -> Section:
    m = card.pretrained
    unknown = f", {len(m.unknown_macs)} layer(s) unknown: {', '.join(m.unknown_macs[:3])}" if m.unknown_macs else ""
    inputs = [f"{name} {shape}" for name, shape in m.inputs.items()]
    more = f" and {len(inputs) - MAX_SHAPES} more" if len(inputs) > MAX_SHAPES else ""
    rows = [
        ("name", m.name),
        ("SHA-256 of the float file", m.sha256),
        ("format", f"opset {m.opset}, IR {m.ir_version}" + (f", made by {m.producer}" if m.producer else "")),
        ("inputs", ", ".join(inputs[:MAX_SHAPES]) + more),
        ("parameters", f"{m.parameters:,}".replace(",", " ")),
        ("multiply-accumulates", units.number(m.macs) + (f" ({'; '.join(m.assumed)})" if m.assumed else "") + unknown),
        *evaluation_rows(card),
    ]
    return Section("Pretrained model", tuple(rows))


def _number_format(f: NumberFormat, what: str) -> str:
    parts = [f.sign if f.sign != "auto" else "unsigned where non-negative, else signed", f.form, f.granularity]
    if f.narrow_range:
        parts.append("narrow range")
    return f"{', '.join(parts)}; scale: {f.scale}; {what}: {f.clipping}"


def _method(card: CardData) -> Section:
    m = card.method
    bias = "int32, scale of the input × scale of the weight" if m.bias == "int32" else f"{m.bias}, not quantized"
    rows = [
        ("quantizer", ("uniform" if m.uniform else "non-uniform") + (", static" if m.static else ", dynamic")),
        ("weights", _number_format(m.weights, "range")),
        ("activations", _number_format(m.activations, "clipping")),
        ("biases", bias),
        ("rounding", m.rounding),
    ]
    if card.widened_biases:
        channels = ", ".join(f"{name} ({count})" for name, count in card.widened_biases.items())
        rows.append(
            ("weight scales widened for the bias", f"{len(card.widened_biases)} layer(s), channels each: {channels}")
        )
    return Section("Quantization method", tuple(rows))


def _operations(card: CardData) -> Section:
    o = card.operations
    fused = ", ".join(f"{c.fused} of {c.total} {c.op}" for c in o.by_op if c.fused) or "none in this model"
    if o.absorbed_activations:
        fused += f"; {o.absorbed_activations} of them absorbed by the saturation of the quantizer"
    ends = "; ".join(
        f"{e.name}: weights {units.bits(e.weight_bits)}, activations {units.bits(e.activation_bits)}"
        for e in o.first_last
    )
    rows = [
        (
            "residual connections",
            f"{o.residual_adds} sum(s) of activations: {o.residual}" if o.residual_adds else o.residual,
        ),
        ("skip connections", o.skip or "not recorded"),
        ("first and last layer", ends or "no layer"),
        ("pooling", o.pooling),
        ("concatenation", o.concat),
        ("embeddings", o.embeddings),
        ("activations fused into layers", f"{fused} (the target fuses {', '.join(o.fused_activations) or 'none'})"),
        ("batch normalization", o.batchnorm),
    ]
    return Section("Quantized operations", tuple(rows))


def _widths(counts: tuple[WidthCount, ...], noun: str) -> str:
    total = sum(c.parameters for c in counts)
    parts = []
    for c in counts:
        part = f"{c.count} {noun} {'in float' if c.bits >= 16 else f'at {c.bits} bits'}"
        if c.parameters:
            part += f" ({units.share(c.parameters, total)} of the parameters)"
        parts.append(part)
    return ", ".join(parts) or "none"


def _precision(card: CardData) -> Section:
    p, m = card.precision, card.method
    maps = p.feature_maps
    asked = f"weights {p.weight_bits}, activations {p.activation_bits}"
    asked += (
        f", first and last layer {p.first_last_bits}"
        if p.first_last_bits is not None
        else ", first and last layer like the others"
    )
    asked += f", {p.overrides} per-node override(s)" if p.overrides else ""
    rows = [
        ("widths the target supports", f"weights {_list(m.weights.bits)}; activations {_list(m.activations.bits)}"),
        ("widths requested", asked),
        ("weights", _widths(p.weights, "layer(s)")),
        ("activations", _widths(p.activations, "tensor(s)")),
    ]
    rows += _search(card.search) if card.search is not None else []
    if maps is None:
        rows.append(("feature maps", "unknown: the model leaves shapes open"))
    else:
        rows += [
            ("largest feature map", change(maps.largest)),
            ("peak of all alive at a time", change(maps.peak)),
            ("average feature map", f"{change(maps.average)}, over {maps.count} maps"),
        ]
    return Section("Mixed precision", tuple(rows))


def _search(record: SearchRecord) -> list[tuple[str, str]]:
    """How the widths were chosen, and their predicted cost."""
    how = record.method + (f" on {record.sensitivity} sensitivities" if record.sensitivity else "")
    how += ", optimal" if record.optimal else ""
    options = {k: v for k, v in record.parameters.items() if v not in (None, [], {})}
    rows = [("widths chosen by", how + (f"; {inline(options)}" if options else ""))]
    if record.limits:
        rows.append(("under the limits", "; ".join(record.limits)))
    costs = []
    for cost, amount in record.predicted.items():
        text = units.milliseconds(amount) if cost == "latency" else units.number(amount)
        if cost in ("size", "stored", "peak", "largest", "average"):
            text = units.size(amount)
        base = record.int8.get(cost)
        costs.append(f"{cost} {text}" + (f" ({units.share(amount, base)} of int8)" if base else ""))
    return [*rows, ("predicted cost", ", ".join(costs))] if costs else rows


def _list(bits: tuple[int, ...]) -> str:
    return ", ".join(map(str, sorted(bits)))


def _lowering(lowering: Lowering) -> Section:
    def counts(table: dict[str, int]) -> str:
        return ", ".join(f"{name} ({count})" for name, count in table.items()) or "none"

    islands = "; ".join(f"{n.name} ({n.op}): {n.reason}" for n in lowering.islands)
    rows = [
        ("operators of com.onnxq", counts(lowering.operators)),
        ("multipliers b / 2^c", counts(lowering.rescales)),
        ("operators left in float", islands or "none"),
    ]
    return Section("Integer-only form", tuple(rows))


def _proof(proof: Proof) -> Section:
    what = f"{proof.samples} {'RANDOM ' if proof.random else ''}sample(s), {proof.level}, against the {proof.reference}"
    rows = [("compared", what), *((run.name, _proof_run(run)) for run in proof.runs)]
    rows += [("FINDING", finding.text) for finding in proof.findings]
    if proof.runs and not proof.findings:
        rows.append(("findings", f"none (every output has at least {proof.floor_db:g} dB)"))
    rows += [("note", note) for note in proof.notes]
    return Section("Proof", tuple(rows), marked=("FINDING",))


def _proof_run(run: ProofRun) -> str:
    if run.failed:
        return f"does not run: {run.failed}"
    shown = [f"{o.name} {_proof_output(o)}" for o in run.outputs[:MAX_OUTPUTS]]
    more = f" and {len(run.outputs) - MAX_OUTPUTS} more" if len(run.outputs) > MAX_OUTPUTS else ""
    fewer = f", on {run.samples} sample(s)" if run.samples is not None else ""
    return (", ".join(shown) or "runs") + more + fewer


def _proof_output(output: ProofOutput) -> str:
    if not output.compared:
        return "not comparable"
    if output.sqnr_db is not None:
        return f"{output.sqnr_db:.1f} dB"
    return "equal" if output.equal == 1.0 else f"{100 * output.equal:.1f} % equal"


def _resources(card: CardData) -> Section:
    r = card.resources
    rows: list[tuple[str, str]] = []
    marked = []
    for i, use in enumerate(r.data, 1):
        label = "calibration data" if len(r.data) == 1 else f"calibration data {i}"
        rows.append((label, data_text(use)))
        if use.random:
            marked.append(label)
        if use.sha256:
            rows.append(("SHA-256 of the data", use.sha256))
        if use.preprocess:
            rows.append(("preprocessing", inline(use.preprocess)))
    if not r.data:
        rows.append(("calibration data", "none recorded"))
    if r.seconds is not None:
        rows.append(("time", f"{units.seconds(r.seconds)} in total; {_slowest(card)}"))
    if r.peak_rss_bytes is not None:
        rows.append(("peak memory of the process", units.size(r.peak_rss_bytes)))
    if r.epoch_share is not None:
        text = f"{100 * r.epoch_share:.3g} % of one training epoch ({r.training_samples} samples)"
        rows.append(("share of the training", text))
    rows.append(("training, fine-tuning", "none"))
    if r.threads is not None:
        rows.append(("threads", str(r.threads) if r.threads else "onnxruntime's default"))
    return Section("Resource complexity", tuple(rows), tuple(marked))


def _slowest(card: CardData) -> str:
    passes = sorted(card.resources.passes, key=lambda p: -(p.seconds or 0.0))[:3]
    return ", ".join(f"{p.text.split('{')[0]} {units.seconds(p.seconds)}" for p in passes) or "no pass ran"


def _provenance(card: CardData) -> Section:
    p = card.profile
    return Section(
        "Made with",
        (
            ("hardware profile", f"{p.name}: {p.summary}"),
            ("profile source", p.source),
            ("pipeline", re.sub(r",(?![^{]*\})", ", ", card.pipeline)),  # spaces allow wrapping
            ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ),
    )
