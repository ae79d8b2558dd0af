"""MixQuant: the width of every layer from its weights alone (Kloberdanz & Le 2023, algorithm 1).

For every layer the quantization error, the mean of (w − dequantize(quantize(w)))², is worked out at 8 … 2 bits; what it
may be is QEM · (its error at 8 bits), QEM being the quantization error multiplier. "argmin b subject to error(b) ≤
QEM · error(8)" can be read in two ways:

* "lowest" (the paper's intent): the lowest width that satisfies it;
* "least-error": of the widths that satisfy it the one with the least error. As errors grow with every bit less, that
  is 8 bits for nearly any tensor; it differs only where the weights lie on the grid of a narrower format.

The widest width allowed always counts as satisfying it: a layer cannot do better.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxq.cost.prepared import Prepared, weights_of
from onnxq.errors import ConfigError
from onnxq.numeric.weight_error import weight_errors
from onnxq.profiles.schema import Profile, WeightRule

WIDTHS = (8, 7, 6, 5, 4, 3, 2)
BASE_BITS = 8
Reading = Literal["lowest", "least-error"]
# The paper's quantizer, and two others; "profile" takes the weight rule of the hardware profile.
QUANTIZERS = {
    "affine": WeightRule(signed=False, symmetric=False, narrow_range=False, granularity="per-tensor"),
    "symmetric": WeightRule(granularity="per-channel"),
    "power-of-two": WeightRule(granularity="per-tensor", power_of_two=True),
}
DEFAULT_QUANTIZER = "affine"


@dataclass(frozen=True)
class ErrorTable:
    """Quantization errors of a model's layers.

    errors[node][bits]: mean squared error; BASE_BITS is always among the widths. parameters: weights of each node.
    quantizer: its name. seconds: that making the table took.
    """

    errors: Mapping[str, Mapping[int, float]]
    parameters: Mapping[str, int]
    quantizer: str
    seconds: float

    def relative(self, node: str, bits: int) -> float:
        """error(bits) / error(8) of a layer; 1 where both are 0, infinite where only that at 8 bits is."""
        error, base = self.errors[node][bits], self.errors[node][BASE_BITS]
        if base > 0:
            return error / base
        return 1.0 if error == 0 else float("inf")

    def most_sensitive(self, bits: int) -> list[tuple[str, float]]:
        """(node, relative error) at this width, the largest first (the paper's table 4)."""
        rows = [(node, self.relative(node, bits)) for node in self.errors]
        return sorted(rows, key=lambda row: -row[1])


def error_table(prepared: Prepared, quantizer: str = DEFAULT_QUANTIZER, bits: Sequence[int] = WIDTHS) -> ErrorTable:
    """Errors of every layer at 8 bits and at `bits`; tensors shared by layers are quantized once.

    Raises ConfigError for an unknown quantizer.
    """
    started = time.perf_counter()
    rule = rule_of(quantizer, prepared.profile)
    widths = sorted({BASE_BITS, *bits}, reverse=True)
    formats = [rule.format(b) for b in widths]
    done: dict[tuple[int, int | None], NDArray[np.float64]] = {}
    errors, parameters = {}, {}
    for layer, values, channel in weights_of(prepared.layers):
        axis = channel if rule.granularity == "per-channel" and layer.weight_index == 1 else None
        key = (id(layer.weight), axis)
        if key not in done:
            done[key] = weight_errors(values, formats, axis)
        errors[layer.node.name] = dict(zip(widths, map(float, done[key]), strict=True))
        parameters[layer.node.name] = values.size
    return ErrorTable(errors, parameters, quantizer, time.perf_counter() - started)


def rule_of(quantizer: str, profile: Profile) -> WeightRule:
    """The number format that a quantizer's name stands for."""
    if quantizer == "profile":
        return profile.weights
    if quantizer not in QUANTIZERS:
        raise ConfigError(f"quantizer {quantizer!r} is none of {', '.join(QUANTIZERS)}, profile")
    return QUANTIZERS[quantizer]


def choose(
    table: ErrorTable,
    qem: float,
    bits: Sequence[int] = WIDTHS,
    *,
    reading: Reading = "lowest",
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Width of every layer under error(b) ≤ qem · error(8).

    bits: widths to choose from, in the table. fixed: {node: bits} of layers not to choose for. Raises ConfigError for
    a QEM below 1, which nothing but 8 bits could satisfy, or an unknown reading.
    """
    if not qem >= 1 or not np.isfinite(qem):
        raise ConfigError(
            f"QEM {qem}: a finite number of at least 1 is needed (1 allows no more error than 8 bits have)"
        )
    if reading not in get_args(Reading):
        raise ConfigError(f"reading {reading!r} is none of {', '.join(get_args(Reading))}")
    chosen = {}
    for node, errors in table.errors.items():
        if fixed and node in fixed:
            chosen[node] = fixed[node]
            continue
        allowed = qem * errors[BASE_BITS]
        satisfying = [b for b in sorted(bits) if errors[b] <= allowed] or [max(bits)]
        chosen[node] = satisfying[0] if reading == "lowest" else min(satisfying, key=lambda b: (errors[b], -b))
    return chosen


def thresholds(table: ErrorTable, bits: Sequence[int] = WIDTHS) -> list[float]:
    """The QEMs at which the choice changes, ascending, 1 first: between two of them it stays."""
    found = {table.relative(node, b) for node in table.errors for b in bits}
    return [1.0, *sorted(r for r in found if 1 < r < float("inf"))]


__all__ = ["BASE_BITS", "QUANTIZERS", "WIDTHS", "ErrorTable", "choose", "error_table", "rule_of", "thresholds"]
