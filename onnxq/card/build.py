"""Making a card from what a quantization run left behind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs

from onnxq._version import __version__
from onnxq.card import schema, wording
from onnxq.card.schema import Card, Change
from onnxq.cost.concrete_shapes import Shapes, concrete_shapes, format_shape
from onnxq.cost.feature_maps import feature_maps
from onnxq.cost.layer_costs import FLOAT_BITS, FLOAT_MIN, LayerCost, Totals, bit_operations, layer_costs, totals, walk
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import is_constant
from onnxq.graph.model import INLINE_LIMIT, Model, to_proto
from onnxq.numeric.qparams import QParams
from onnxq.pipeline import PassReport
from onnxq.placement.fitness import SUMS
from onnxq.placement.plan import Placement
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile

# Metadata that fuse-activation-clips leaves on the node which took over from an activation.
ABSORBED_KEY = "onnxq.absorbed"


@dataclass(frozen=True)
class FloatInfo:
    """The float model as it was before any pass: what a card compares with.

    inputs: {name: shape}. batchnorms: BatchNormalization nodes. file_bytes: of the model file and its external data.
    layers: {name: cost}.
    """

    name: str
    sha256: str
    opset: int
    ir_version: int
    producer: str
    inputs: dict[str, str]
    batchnorms: int
    file_bytes: int
    totals: Totals
    layers: dict[str, LayerCost]
    assumed: tuple[str, ...]


def describe_float(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> FloatInfo:
    """Take down the float model; call it before the passes, which edit the model in place.

    input_shapes: {input name: dims} where the model leaves dimensions open; an open batch counts as 1.
    """
    shapes = concrete_shapes(model.graph, input_shapes)
    costs = layer_costs(model.graph, shapes)
    total = totals(model.graph, costs)
    return FloatInfo(
        model.name,
        model.sha256,
        model.opset,
        int(model.header.ir_version),
        " ".join(filter(None, (model.header.producer_name, model.header.producer_version))),
        {t.name: format_shape(t.shape) for t in model.graph.inputs},
        sum(n.op == "BatchNormalization" for _, n in walk(model.graph)),
        _float_file_bytes(model, total),
        total,
        {c.name: c for c in costs},
        shapes.assumed,
    )


def build_card(
    *,
    model: Model,
    float_info: FloatInfo,
    placement: Placement,
    profile: Profile,
    settings: QuantSettings,
    reports: Sequence[PassReport],
    statistics: Mapping[str, Any],
    data: Mapping[str, Any],
    seconds: float,
    peak_rss_bytes: int,
    pipeline_text: str,
    evaluation: dict[str, Any] | None = None,
    threads: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    search: Mapping[str, Any] | None = None,
) -> Card:
    """The card of a quantized model.

    model: quantized. float_info: describe_float of it before the passes. statistics: their provenance. data: what the
    source of the samples says of itself (DataSource.describe); empty when only statistics were given. seconds: from
    reading the model to here. evaluation: JSON types, None when not evaluated. threads: as asked for, 0 automatic.
    search: the [search] table of the config that the widths came from.
    """
    shapes = concrete_shapes(model.graph, input_shapes)
    costs = layer_costs(model.graph, shapes)
    reasons = _reasons(placement)
    layers = _layers(costs, placement, float_info, reasons)
    ops = {n.name: n for _, n in walk(model.graph)}
    quantized = totals(model.graph, costs)
    return Card(
        versions=_versions(),
        profile=schema.ProfileRecord(profile.name, profile.summary, profile.source, profile.graph.scheme),
        pipeline=without_paths(pipeline_text),
        method=_method(profile, settings, _calibration(reports, settings)),
        operations=_operations(ops, placement, profile, float_info, layers),
        precision=_precision(profile, settings, placement, layers, model.graph, shapes),
        resources=schema.Resources(
            _data_uses(data, statistics),
            tuple(schema.PassRecord(without_paths(r.text), r.changed, round(r.seconds, 4)) for r in reports),
            round(seconds, 3),
            peak_rss_bytes,
            threads,
        ),
        pretrained=schema.Pretrained(
            float_info.name,
            float_info.sha256,
            float_info.opset,
            float_info.ir_version,
            float_info.producer,
            float_info.inputs,
            float_info.totals.parameters,
            float_info.totals.macs,
            float_info.totals.unknown,
            float_info.assumed,
        ),
        cost=schema.Cost(
            Change(float_info.file_bytes, _quantized_file_bytes(model, quantized)),
            Change(float_info.totals.size, quantized.size),
            Change(float_info.totals.bops, quantized.bops),
        ),
        layers=layers,
        float_nodes=tuple(
            schema.FloatNode(name, ops[name].op, reasons.get(name) or f"profile {profile.name} runs it in float")
            for name, action in placement.actions.items()
            if action == "float" and name in ops and ops[name].op not in ("QuantizeLinear", "DequantizeLinear")
        ),
        widened_biases=dict(placement.widened),
        remarks=_remarks(model, reports, placement),
        evaluation=evaluation,
        search=schema.SearchRecord.of(search) if search is not None else None,
    )


def _float_file_bytes(model: Model, total: Totals) -> int:
    if model.path is not None and model.path.is_file():
        return model.path.stat().st_size + (total.size if model.external else 0)
    return total.size if total.size > INLINE_LIMIT else to_proto(model).ByteSize()


def _quantized_file_bytes(model: Model, total: Totals) -> int:
    """Size of the file to come, without a card in it; of its constants where they go to a file of their own."""
    return total.size if model.external or total.size > INLINE_LIMIT else file_bytes(model)


def file_bytes(model: Model) -> int:
    """Size of the model as a file, without a card in it."""
    proto = to_proto(model)
    kept = [p for p in proto.metadata_props if not p.key.startswith("onnxq.card")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto.ByteSize()


def _versions() -> dict[str, str]:
    found = {"onnxq": __version__}
    for package in ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _calibration(reports: Sequence[PassReport], settings: QuantSettings) -> str:
    """The range chooser that was used: insert-qdq may have been given its own."""
    for report in reports:
        found = re.search(r"^insert-qdq\{(?:.*\s)?calibration=(\S+?)[\s}]", report.text)
        if found:
            return found.group(1)
    return settings.calibration


def _method(profile: Profile, settings: QuantSettings, calibration: str) -> schema.Method:
    w, a = profile.weights, profile.activations
    return schema.Method(
        uniform=True,
        static=True,
        weights=schema.NumberFormat(
            w.bits,
            "symmetric" if w.symmetric else "affine",
            "signed" if w.signed else "unsigned",
            w.granularity,
            wording.scale_form(w.power_of_two),
            w.narrow_range,
            settings.weight_range or "max at 8 bits, mse below",
        ),
        activations=schema.NumberFormat(
            a.bits,
            "symmetric" if a.symmetric else "affine",
            a.sign,
            "per-tensor",
            wording.scale_form(a.power_of_two),
            a.narrow_range,
            calibration,
        ),
        rounding="half to even, saturating",
        bias=profile.bias,
    )


def _operations(
    ops: Mapping[str, gs.Node],
    placement: Placement,
    profile: Profile,
    float_info: FloatInfo,
    layers: Sequence[schema.LayerRecord],
) -> schema.Operations:
    counts: dict[str, Counter[str]] = {}
    for name, action in placement.actions.items():
        if name in ops and ops[name].op not in ("QuantizeLinear", "DequantizeLinear"):
            counts.setdefault(ops[name].op, Counter())[action] += 1
    absorbed = Counter(
        text.split()[0] for n in ops.values() if (text := getattr(n, "metadata", {}).get(ABSORBED_KEY, ""))
    )
    for op, count in absorbed.items():
        counts.setdefault(op, Counter())["fused"] += count
    adds = [n for n in ops.values() if n.op in SUMS and sum(not is_constant(t) for t in n.inputs) > 1]
    products = [r for r in layers if r.op in LINEAR_OPS and r.weight_bits is not None]
    ends = {r.name: r for r in (products[:1] + products[-1:])}
    left = sum(n.op == "BatchNormalization" for n in ops.values())
    return schema.Operations(
        tuple(
            schema.OperatorCount(op, c.total(), c["quantized"], c["passthrough"], c["fused"], c["float"])
            for op, c in sorted(counts.items(), key=lambda item: (-item[1]["quantized"], item[0]))
        ),
        len(adds),
        wording.residual(profile.graph.scheme, len(adds)),
        wording.concat(profile.graph.concat, counts),
        wording.pooling(counts),
        wording.embeddings(counts, [r for r in layers if r.op == "Gather"]),
        profile.graph.fused_activations,
        absorbed.total(),
        wording.batchnorm(float_info.batchnorms, left),
        tuple(
            schema.EndLayer(r.name, r.weight_bits or FLOAT_BITS, r.activation_bits or FLOAT_BITS) for r in ends.values()
        ),
    )


def _precision(
    profile: Profile,
    settings: QuantSettings,
    placement: Placement,
    layers: Sequence[schema.LayerRecord],
    graph: gs.Graph,
    shapes: Shapes,
) -> schema.Precision:
    widths: dict[int, list[schema.LayerRecord]] = {}
    for layer in layers:
        if layer.weight_bits is not None:
            widths.setdefault(layer.weight_bits, []).append(layer)
    activations = Counter(point.format.bits for point in placement.points)
    maps = feature_maps(graph, shapes)
    return schema.Precision(
        settings.weight_bits or profile.weights.bits[0],
        settings.activation_bits or profile.activations.bits[0],
        settings.first_last_bits,
        len(settings.overrides),
        tuple(
            schema.WidthCount(bits, len(rows), sum(r.parameters for r in rows), sum(r.macs or 0 for r in rows))
            for bits, rows in sorted(widths.items())
        ),
        tuple(schema.WidthCount(bits, count) for bits, count in sorted(activations.items())),
        None
        if maps is None
        else schema.FeatureMapBytes(
            Change(*maps.largest), Change(*maps.peak), Change(*(round(v) for v in maps.average)), maps.count
        ),
    )


def _layers(
    costs: Iterable[LayerCost], placement: Placement, float_info: FloatInfo, reasons: Mapping[str, str]
) -> tuple[schema.LayerRecord, ...]:
    plans = {layer.node.name: layer for layer in placement.layers}
    inputs: dict[str, QParams] = {}
    for point in placement.points:
        qparams = placement.activation_qparams.get(point.tensor.name)
        if qparams is not None:
            for node, _ in point.edges:
                inputs.setdefault(node.name, qparams)
    rows = []
    for cost in costs:
        plan = plans.get(cost.name)
        weight, activation = placement.weight_qparams.get(cost.name), inputs.get(cost.name)
        action = placement.actions.get(cost.name, "float")
        before = float_info.layers.get(cost.name)
        weight_bits = weight.format.bits if weight is not None else cost.weight_bits
        activation_bits = activation.format.bits if activation is not None else cost.activation_bits
        if action == "float" and (weight_bits or FLOAT_BITS) >= FLOAT_MIN:
            activation_bits = weight_bits  # computed in float, whatever grid its input lies on
        rows.append(
            schema.LayerRecord(
                cost.name,
                cost.op,
                action,
                reasons.get(cost.name, "") if action == "float" else "",
                cost.weight_shape,
                weight_bits,
                str(weight.format) if weight is not None else "",
                plan is not None and plan.per_channel and weight is not None and weight.axis is not None,
                (float(weight.scale.min()), float(weight.scale.max())) if weight is not None else None,
                activation_bits,
                str(activation.format) if activation is not None else "",
                cost.parameters,
                cost.macs,
                bit_operations(cost.macs, weight_bits, activation_bits) if weight_bits is not None else cost.bops,
                Change(before.size if before is not None else cost.parameters * 4, cost.size),
            )
        )
    return tuple(rows)


def _reasons(placement: Placement) -> dict[str, str]:
    found: dict[str, str] = {}
    for failure in placement.skipped:
        found.setdefault(failure.node, failure.reason)
    return found


def _remarks(model: Model, reports: Sequence[PassReport], placement: Placement) -> tuple[schema.Remark, ...]:
    found = [schema.Remark("load", "", _without_local_paths(note)) for note in model.notes]
    for report in reports:
        name = report.text.split("{")[0]
        found += [schema.Remark(name, "", _without_local_paths(note)) for note in report.notes]
        found += [
            schema.Remark(name, failure.node, _without_local_paths(failure.reason))
            for failure in report.skipped
            if name != "insert-qdq" or placement.actions.get(failure.node) != "float"
        ]
    return tuple(dict.fromkeys(found))


def _data_uses(data: Mapping[str, Any], statistics: Mapping[str, Any]) -> tuple[schema.DataUse, ...]:
    """The data the statistics were made from: one source, or several where shards were merged."""
    from_statistics = statistics.get("data") or []
    sources = [data] if data else from_statistics if isinstance(from_statistics, list) else [from_statistics]
    uses = []
    for source in sources:
        seen = statistics.get("samples") if len(sources) == 1 else None
        count = seen if isinstance(seen, int) and seen > 0 else source.get("samples")
        uses.append(
            schema.DataUse(
                str(source.get("kind", "unknown")),
                without_paths(str(source.get("name") or "")),
                count if isinstance(count, int) else None,
                bool(source.get("labelled", False)),
                str(source.get("sha256") or ""),
                without_paths(source.get("preprocess")),
                source.get("kind") == "random",
            )
        )
    return tuple(uses)


_ABSOLUTE = re.compile(r"(?<![\w.:/\\-])(?:/|[A-Za-z]:\\)(?:[^\s/\\{}\"',=]+[/\\])*([^\s/\\{}\"',=]*)")


def without_paths(value: Any) -> Any:
    """The value with every absolute path in its texts cut down to the last part: a card tells nobody's folders."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda m: m.group(1) or m.group(0), value)
    if isinstance(value, Mapping):
        return {str(k): without_paths(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(v) for v in value]
    return value


def _without_local_paths(text: str) -> str:
    """without_paths for texts that may hold node names, which look like paths: only what exists is cut."""

    def cut(match: re.Match[str]) -> str:
        whole = match.group(0)
        return (match.group(1) or whole) if len(whole) > 1 and Path(whole).exists() else whole

    return _ABSOLUTE.sub(cut, text)
