"""Fields of a card that are measured on a machine, or describe only how a run was carried out.

They differ from run to run, so they are in the `.card.json` next to a model, and never in the model: the same command
writes the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_KEY = "measured"
# Of an evaluation, which a card holds as a table (Evaluation.to_dict), at any depth.
EVALUATION_KEYS = frozenset({"ms_per_sample", "samples_per_second", "threads"})


def measured() -> Any:
    """A dataclass field, None unless known, for seconds, memory, or anything else that another run would not repeat."""
    return dataclasses.field(default=None, metadata={_KEY: True})


def without_measured(record: T) -> T:
    """A copy of a dataclass in which every measured() field is None, here and in the dataclasses inside it."""
    changes = {}
    for f in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, f.name)
        changes[f.name] = None if _KEY in f.metadata else _inside(value)
    return dataclasses.replace(record, **changes)  # type: ignore[type-var]


def without_speed(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's table without what is measured; accuracy and errors remain."""
    kept = {key: value for key, value in evaluation.items() if key not in EVALUATION_KEYS}
    return {key: without_speed(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _inside(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return without_measured(value)
    return tuple(map(_inside, value)) if isinstance(value, tuple) else value
