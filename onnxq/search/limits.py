"""Limits on costs as users write them: `3MB`, `1.2G`, `5ms`, or `60%` of the same model in int8."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from onnxq.errors import ConfigError
from onnxq.search.linear_program import Limit

ROUNDING = 1e-9  # a total may exceed its limit by this share
UNITS: dict[str, dict[str, float]] = {
    "bytes": {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "operations": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    "seconds": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
}


class Cost(NamedTuple):
    """A cost that can be limited.

    unit: its kind (UNITS). name: in messages. option, counted, example: of `onnxq search` and its help.
    """

    unit: str
    name: str
    option: str
    counted: str
    example: str = "60% of int8"


COSTS = {
    "size": Cost("bytes", "size", "--max-size", "size of weights, scales, zero points and biases, packed"),
    "bops": Cost("operations", "bit operations", "--max-bops", "bit operations, b_w · b_a · MACs"),
    "latency": Cost("seconds", "latency", "--max-latency", "time of a run, with --latency", "80% of int8, 5ms"),
    "peak": Cost("bytes", "peak feature-map memory", "--max-peak", "bytes of feature maps alive at a time"),
    "largest": Cost("bytes", "largest feature map", "--max-largest", "bytes of the largest feature map"),
    "average": Cost("bytes", "average feature map", "--max-average", "mean bytes of a feature map"),
}
MAP_COSTS = ("peak", "largest", "average")  # of feature maps


def parse_limit(cost: str, text: str | float, baseline: Mapping[str, float]) -> Limit:
    """Parse a limit. text: "60%" of `baseline` (int8), an amount with a unit, or bytes, operations, seconds.

    Raises ConfigError if it cannot be parsed, is not positive, or the model's cost is unknown.
    """
    kind, name, option = COSTS[cost][:3]
    label = f"{option} {text}"
    if cost not in baseline:
        need = "give --latency, the file of `onnxq latency`" if cost == "latency" else "give --input-shape"
        raise ConfigError(f"{label}: the {name} of this model is unknown; {need}")
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([%a-zA-Zµ]*)\s*", str(text))
    units = UNITS[kind]
    default = {"bytes": "B", "operations": "", "seconds": "s"}[kind]
    try:
        amount = float(found.group(1)) if found else 0.0
    except ValueError:
        amount = 0.0
    unit = (found.group(2) if found else "") or default
    if unit != "%" and kind == "operations":
        unit = unit.removesuffix("BOPS").removesuffix("bops")
    if not 0 < amount < math.inf or (unit != "%" and unit not in units):
        known = ", ".join(u for u in ("%", *units) if u)
        raise ConfigError(f"{label}: expected a positive number with one of {known}, e.g. {option} 60%")
    if unit == "%":
        most = amount / 100 * baseline[cost]
        return Limit(cost, most, f"{label} ({format_cost(cost, most)})")
    return Limit(cost, amount * units[unit], label)


def format_cost(cost: str, amount: float, baseline: Mapping[str, float] | None = None) -> str:
    """For example 1.24 MB, 3.1 G, 5.2 ms; with a baseline also the share of it."""
    kind = COSTS[cost].unit if cost in COSTS else "bytes"
    if kind == "seconds":
        text = f"{1e3 * amount:.3f} ms"
    else:
        letters = ("B", "kB", "MB", "GB") if kind == "bytes" else ("", "k", "M", "G", "T")
        step = 0
        while abs(amount) >= 1000 and step + 1 < len(letters):
            amount, step = amount / 1000, step + 1
        text = f"{amount:.4g} {letters[step]}".strip()
        amount *= 1000.0**step
    base = (baseline or {}).get(cost)
    return f"{text} ({100 * amount / base:.1f} % of int8)" if base else text


__all__ = ["COSTS", "MAP_COSTS", "ROUNDING", "format_cost", "parse_limit"]
