"""A card as titled rows of text: what Markdown and HTML both show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onnxq.card import units
from onnxq.card.schema import Card, Change, DataUse, Lowering, NumberFormat, SearchRecord, WidthCount

MAX_SHAPES = 4


@dataclass(frozen=True)
class Section:
    """One part of the card. rows: (label, text). marked: labels of rows that must not be overlooked."""

    title: str
    rows: tuple[tuple[str, str], ...]
    marked: tuple[str, ...] = ()


def sections(card: Card) -> list[Section]:
    """The parts of the card, in the order of Garg et al., then what the tool adds."""
    return [
        _model(card),
        _method(card),
        _operations(card),
        _precision(card),
        *([_lowering(card.lowering)] if card.lowering is not None else []),
        _resources(card),
        _provenance(card),
    ]


def change(value: Change, unit: Any = units.size) -> str:
    """13.95 MB → 3.6 MB (25.8 %)."""
    return f"{unit(value.before)} → {unit(value.after)} ({units.share(value.after, value.before)})"


def knows_bit_operations(card: Card) -> bool:
    """Whether the model's sizes tell the bit operations of any layer."""
    return bool(card.cost.bops.before or not card.pretrained.unknown_macs)


def bit_operations_text(card: Card) -> str:
    """The change in bit operations, as far as the model's sizes tell them."""
    unknown = len(card.pretrained.unknown_macs)
    if not knows_bit_operations(card):
        return "not known (the model leaves sizes open: --input-shape)"
    rest = f", without {unknown} layer(s) of unknown size" if unknown else ""
    return change(card.cost.bops, units.number) + rest


def evaluation_rows(card: Card) -> list[tuple[str, str]]:
    """Accuracy and agreement, as far as they were evaluated."""
    found = card.evaluation
    if not found:
        return [("accuracy", "not evaluated")]
    against = found.get("against") or {}
    rows: list[tuple[str, str]] = []
    for key, label in (("top1", "top-1"), ("top5", "top-5")):
        after, before = found.get(key), against.get(key)
        if after is None:
            continue
        error = found.get(f"{key}_error")
        text = (
            f"{units.percent(before)} float → {units.percent(after)} quantized"
            if before is not None
            else units.percent(after)
        )
        rows.append((label, text + (f" (± {100 * error:.2f} points)" if error is not None else "")))
    if against.get("agreement") is not None:
        rows.append(("agreement with float", units.percent(against["agreement"])))
    if against.get("kl") is not None:
        rows.append(("KL(float ‖ quantized)", f"{against['kl']:.4g} nats"))
    for name, error in (against.get("outputs") or {}).items():
        if isinstance(error, dict):
            sqnr = error.get("sqnr_db")
            rows.append((f"SQNR of {name}", "equal" if sqnr is None else f"{sqnr:.1f} dB"))
    if found.get("samples") is not None:
        data = found.get("data") or {}
        labelled = f", {found['labelled']} labelled" if found.get("labelled") else ""
        rows.append(("evaluated on", f"{found['samples']} samples{_of(data)}{labelled}"))
    return rows or [(key, str(value)) for key, value in found.items() if not isinstance(value, (dict, list))]


def _of(data: Any) -> str:
    if not isinstance(data, dict) or not data.get("kind"):
        return ""
    name = data.get("name")
    return f" of {name} ({data['kind']})" if name else f" ({data['kind']})"


def _model(card: Card) -> Section:
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


def _method(card: Card) -> Section:
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
        told = ", ".join(f"{name} ({count})" for name, count in card.widened_biases.items())
        rows.append(
            ("weight scales widened for the bias", f"{len(card.widened_biases)} layer(s), channels each: {told}")
        )
    return Section("Quantization method", tuple(rows))


def _operations(card: Card) -> Section:
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
            "skip connections",
            f"{o.residual_adds} sum(s) of activations: {o.residual}" if o.residual_adds else o.residual,
        ),
        ("first and last layer", ends or "no layer"),
        ("pooling", o.pooling),
        ("concatenation", o.concat),
        ("embeddings", o.embeddings),
        ("activations run inside layers", f"{fused} (the target fuses {', '.join(o.fused_activations) or 'none'})"),
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


def _precision(card: Card) -> Section:
    p, m = card.precision, card.method
    maps = p.feature_maps
    asked = f"weights {p.weight_bits}, activations {p.activation_bits}"
    asked += (
        f", first and last layer {p.first_last_bits}"
        if p.first_last_bits is not None
        else ", first and last layer alike"
    )
    asked += f", {p.overrides} per-node override(s)" if p.overrides else ""
    rows = [
        ("widths the target takes", f"weights {_list(m.weights.bits)}; activations {_list(m.activations.bits)}"),
        ("widths asked for", asked),
        ("weights", _widths(p.weights, "layer(s)")),
        ("activations", _widths(p.activations, "tensor(s)")),
    ]
    rows += _search(card.search) if card.search is not None else []
    if maps is None:
        rows.append(("feature maps", "unknown: the model leaves shapes open"))
    else:
        rows += [
            ("largest feature map", change(maps.largest)),
            ("peak of all alive at once", change(maps.peak)),
            ("average feature map", f"{change(maps.average)}, over {maps.count} maps"),
        ]
    return Section("Mixed precision", tuple(rows))


def _search(record: SearchRecord) -> list[tuple[str, str]]:
    """How the widths were chosen, and what was predicted of them."""
    how = record.method + (f" on {record.sensitivity} sensitivities" if record.sensitivity else "")
    how += ", optimal" if record.optimal else ""
    options = {k: v for k, v in record.parameters.items() if v not in (None, [], {})}
    rows = [("widths chosen by", how + (f"; {_inline(options)}" if options else ""))]
    if record.limits:
        rows.append(("under the limits", "; ".join(record.limits)))
    told = []
    for cost, amount in record.predicted.items():
        text = units.milliseconds(amount) if cost == "latency" else units.number(amount)
        if cost in ("size", "stored", "peak", "average"):
            text = units.size(amount)
        base = record.int8.get(cost)
        told.append(f"{cost} {text}" + (f" ({units.share(amount, base)} of int8)" if base else ""))
    return [*rows, ("predicted for them", ", ".join(told))] if told else rows


def _list(bits: tuple[int, ...]) -> str:
    return ", ".join(map(str, sorted(bits)))


def _lowering(lowering: Lowering) -> Section:
    def counts(table: dict[str, int]) -> str:
        return ", ".join(f"{name} ({count})" for name, count in table.items()) or "none"

    islands = "; ".join(f"{n.name} ({n.op}): {n.reason}" for n in lowering.islands)
    rows = [
        ("operators of com.onnxq", counts(lowering.operators)),
        ("multipliers b / 2^c", counts(lowering.rescales)),
        ("float operators between integers", islands or "none"),
    ]
    return Section("Integer-only form", tuple(rows))


def data_text(use: DataUse) -> str:
    """One calibration data source in a sentence."""
    count = "an unknown number of" if use.samples is None else str(use.samples)
    if use.random:
        return f"RANDOM NUMBERS, {count} samples: the ranges mean nothing for real inputs"
    labels = "labels are there but not used" if use.labelled else "unlabelled"
    return f"{count} samples{_of({'kind': use.kind, 'name': use.name})}, {labels}"


def _resources(card: Card) -> Section:
    r = card.resources
    rows: list[tuple[str, str]] = []
    marked = []
    for i, use in enumerate(r.data, 1):
        label = "calibration data" if len(r.data) == 1 else f"calibration data {i}"
        rows.append((label, data_text(use)))
        if use.random:
            marked.append(label)
        if use.sha256:
            rows.append(("SHA-256 of it", use.sha256))
        if use.preprocess:
            rows.append(("preprocessing", _inline(use.preprocess)))
    if not r.data:
        rows.append(("calibration data", "none recorded"))
    rows += [
        ("time", f"{units.seconds(r.seconds)} in total; {_slowest(card)}"),
        ("peak memory of the process", units.size(r.peak_rss_bytes)),
        ("training, fine-tuning", "none"),
    ]
    if r.threads is not None:
        rows.append(("threads", str(r.threads) if r.threads else "onnxruntime's default"))
    return Section("Resource complexity", tuple(rows), tuple(marked))


def _slowest(card: Card) -> str:
    passes = sorted(card.resources.passes, key=lambda p: -p.seconds)[:3]
    return ", ".join(f"{p.text.split('{')[0]} {units.seconds(p.seconds)}" for p in passes) or "no pass ran"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {_inline(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return "[" + ", ".join(_inline(v) for v in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _provenance(card: Card) -> Section:
    p = card.profile
    return Section(
        "Made with",
        (
            ("hardware profile", f"{p.name}: {p.summary}"),
            ("profile source", p.source),
            ("pipeline", re.sub(r",(?![^{]*\})", ", ", card.pipeline)),  # spaces, so that it can be wrapped
            ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ),
    )
