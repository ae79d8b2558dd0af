"""Section "integer-only form": the integer operators, the form of their multipliers, and the remaining float nodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxq.card.assembly.float_model import file_bytes
from onnxq.card.assembly.resources import pass_records
from onnxq.card.card import Card
from onnxq.card.parts import Change, FloatNode, LayerRecord, Lowering, Operations
from onnxq.cost.layer_costs import FLOAT_BITS, bit_operations, layer_costs, totals
from onnxq.graph.model import Model
from onnxq.pipeline import Pass, PassReport, print_pipeline

if TYPE_CHECKING:
    from onnxq.check.integer_only import FloatOp


def with_lowering(
    card: Card,
    model: Model,
    passes: Sequence[Pass],
    reports: Sequence[PassReport],
    operators: Mapping[str, int],
    rescales: Mapping[str, int],
    inside: Sequence[FloatOp],
) -> Card:
    """The card of a QDQ model, updated for the integer model lowered from it.

    passes, reports: of the lowering. operators: {operator of com.onnxq: node count}. rescales: {form: operator count}.
    inside: float operators between integers; layers among them count as float from here on. An evaluation of the QDQ
    model does not apply here and is dropped.
    """
    records = pass_records(reports)
    costs = layer_costs(model.graph)
    sizes = {c.name: c.size for c in costs}
    islands = tuple(FloatNode(f.node, f.op, f.reason) for f in inside)
    reasons = {f.node: f.reason for f in inside}
    layers = tuple(_stored(_computed(r, reasons), sizes) for r in card.layers)
    more = sum((new.bops or 0) - (old.bops or 0) for new, old in zip(layers, card.layers, strict=True))
    told = {n.name for n in card.float_nodes}
    return dataclasses.replace(
        card,
        pipeline=f"{card.pipeline},{print_pipeline(passes)}",
        resources=dataclasses.replace(card.resources, passes=(*card.resources.passes, *records)),
        operations=_operations(card, layers),
        cost=dataclasses.replace(
            card.cost,
            bops=Change(card.cost.bops.before, card.cost.bops.after + more),
            file_bytes=Change(card.cost.file_bytes.before, file_bytes(model)),
            constant_bytes=Change(card.cost.constant_bytes.before, totals(model.graph, costs).size),
        ),
        layers=layers,
        float_nodes=(
            *card.float_nodes,
            *(FloatNode(r.name, r.op, r.reason) for r in layers if r.name in reasons and r.name not in told),
        ),
        lowering=Lowering(dict(operators), dict(rescales), islands),
        evaluation=None,
    )


def _stored(record: LayerRecord, sizes: Mapping[str, int]) -> LayerRecord:
    """The record with the bytes of the integer operator's constants."""
    if record.name not in sizes:
        return record
    return dataclasses.replace(record, size=Change(record.size.before, sizes[record.name]))


def _computed(record: LayerRecord, reasons: Mapping[str, str]) -> LayerRecord:
    """The record of a layer that stays float for one of these reasons; its weights are still stored as integers."""
    if record.name not in reasons or record.action != "quantized":
        return record
    bops = bit_operations(record.macs, record.weight_bits, FLOAT_BITS)
    return dataclasses.replace(
        record, action="float", reason=reasons[record.name], activation_bits=FLOAT_BITS, activation_format="", bops=bops
    )


def _operations(card: Card, layers: Sequence[LayerRecord]) -> Operations:
    """The section, with the layers that stay float counted as such."""
    changed = [new for new, old in zip(layers, card.layers, strict=True) if new.action != old.action]
    lost = Counter(record.op for record in changed)
    names = {record.name for record in changed}
    return dataclasses.replace(
        card.operations,
        by_op=tuple(
            dataclasses.replace(c, quantized=c.quantized - lost[c.op], left_float=c.left_float + lost[c.op])
            for c in card.operations.by_op
        ),
        first_last=tuple(
            dataclasses.replace(end, activation_bits=FLOAT_BITS) if end.name in names else end
            for end in card.operations.first_last
        ),
    )
