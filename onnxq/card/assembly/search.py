"""How a search chose the widths, from the [search] table of its configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from onnxq.card.parts import SearchRecord


def search_record(table: Mapping[str, Any]) -> SearchRecord:
    """The record of a [search] table; missing entries are empty."""
    return SearchRecord(
        str(table.get("method", "")),
        str(table.get("sensitivity", "")),
        tuple(str(text) for text in table.get("limits", ())),
        table.get("optimal") is True,
        _json_types(table.get("parameters", {})),
        _amounts(table.get("predicted")),
        _amounts(table.get("int8")),
    )


def _amounts(table: Any) -> dict[str, float]:
    found = table if isinstance(table, dict) else {}
    return {k: float(v) for k, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def _json_types(table: Any) -> dict[str, Any]:
    """A table that may have been edited by hand: values without a JSON type (TOML dates) become text."""
    return dict(json.loads(json.dumps(table, default=str))) if isinstance(table, dict) else {}
