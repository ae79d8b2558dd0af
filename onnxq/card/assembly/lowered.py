"""Section "integer-only form": the integer operators, the form of their multipliers, and the remaining float nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxq.card.assembly.float_model import file_bytes
from onnxq.card.assembly.resources import pass_records
from onnxq.card.card import Card
from onnxq.card.parts import Change, FloatNode, LayerRecord, Lowering
from onnxq.cost.layer_costs import layer_costs, totals
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
    inside: float operators between integers. An evaluation of the QDQ model does not apply here and is dropped.
    """
    records = pass_records(reports)
    costs = layer_costs(model.graph)
    sizes = {c.name: c.size for c in costs}
    islands = tuple(FloatNode(f.node, f.op, f.reason) for f in inside)
    return dataclasses.replace(
        card,
        pipeline=f"{card.pipeline},{print_pipeline(passes)}",
        resources=dataclasses.replace(card.resources, passes=(*card.resources.passes, *records)),
        cost=dataclasses.replace(
            card.cost,
            file_bytes=Change(card.cost.file_bytes.before, file_bytes(model)),
            constant_bytes=Change(card.cost.constant_bytes.before, totals(model.graph, costs).size),
        ),
        layers=tuple(_stored(r, sizes) for r in card.layers),
        lowering=Lowering(dict(operators), dict(rescales), islands),
        evaluation=None,
    )


def _stored(record: LayerRecord, sizes: Mapping[str, int]) -> LayerRecord:
    """The record with the bytes of the integer operator's constants."""
    if record.name not in sizes:
        return record
    return dataclasses.replace(record, size=Change(record.size.before, sizes[record.name]))
