"""A card after lowering: what became integer operators, in which form they rescale, and what stayed float."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxq.card.build import file_bytes, without_paths
from onnxq.card.schema import Card, Change, FloatNode, Lowering, PassRecord
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
    """The card of a QDQ model for the integer model made of it. inside: float operators between integers.

    An evaluation of the QDQ model says nothing of this one and goes.
    """
    records = tuple(PassRecord(without_paths(r.text), r.changed, round(r.seconds, 4)) for r in reports)
    islands = tuple(FloatNode(f.node, f.op, f.reason) for f in inside)
    return dataclasses.replace(
        card,
        pipeline=f"{card.pipeline},{print_pipeline(passes)}",
        resources=dataclasses.replace(card.resources, passes=(*card.resources.passes, *records)),
        cost=dataclasses.replace(card.cost, file_bytes=Change(card.cost.file_bytes.before, file_bytes(model))),
        lowering=Lowering(dict(operators), dict(rescales), islands),
        evaluation=None,
    )
