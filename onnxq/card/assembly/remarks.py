"""Section "remarks": what loading and the passes reported."""

from __future__ import annotations

from onnxq.card.assembly.paths import without_local_paths
from onnxq.card.assembly.run import Made
from onnxq.card.parts import Remark
from onnxq.graph.model import Model


def remarks(model: Model, made: Made) -> tuple[Remark, ...]:
    """Notes and skipped matches, without duplicates, in order; nodes left in float are in a separate section."""
    found = [Remark("load", "", without_local_paths(note)) for note in model.notes]
    for report in made.reports:
        name = report.text.split("{")[0]
        found += [Remark(name, "", without_local_paths(note)) for note in report.notes]
        found += [
            Remark(name, failure.node, without_local_paths(failure.reason))
            for failure in report.skipped
            if name != "insert-qdq" or made.placement.actions.get(failure.node) != "float"
        ]
    return tuple(dict.fromkeys(found))
