"""The error that each weight width adds to every layer, from the weights alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.cost.prepared import Prepared, weights_of
from onnxq.errors import ConfigError
from onnxq.numeric.formats import MAX_BITS, MIN_BITS
from onnxq.numeric.weight_error import weight_errors
from onnxq.profiles.schema import Profile, WeightRule

WIDTHS = tuple(range(MAX_BITS, MIN_BITS - 1, -1))
# MixQuant's quantizer and two others; "profile" uses the weight rule of the hardware profile.
QUANTIZERS = {
    "affine": WeightRule(signed=False, symmetric=False, narrow_range=False, granularity="per-tensor"),
    "symmetric": WeightRule(granularity="per-channel"),
    "power-of-two": WeightRule(granularity="per-tensor", power_of_two=True),
}
DEFAULT_QUANTIZER = "affine"


@dataclass(frozen=True)
class ErrorTable:
    """Quantization errors of a model's layers.

    errors[node][bits]: mean squared error; 8 is always included. parameters: number of weights of each node.
    quantizer: its name. seconds: time taken to compute the table.
    """

    errors: Mapping[str, Mapping[int, float]]
    parameters: Mapping[str, int]
    quantizer: str
    seconds: float

    def relative(self, node: str, bits: int) -> float:
        """error(bits) / error(8) of a layer; 1 if both are 0, infinite if only that at 8 bits is."""
        error, base = self.errors[node][bits], self.errors[node][MAX_BITS]
        if base > 0:
            return error / base
        return 1.0 if error == 0 else float("inf")

    def most_sensitive(self, bits: int) -> list[tuple[str, float]]:
        """(node, relative error) at this width, largest first (Kloberdanz & Le 2023, table 4)."""
        rows = [(node, self.relative(node, bits)) for node in self.errors]
        return sorted(rows, key=lambda row: -row[1])


def error_table(prepared: Prepared, quantizer: str = DEFAULT_QUANTIZER, bits: Sequence[int] = WIDTHS) -> ErrorTable:
    """Errors of every layer at 8 bits and at `bits`; a tensor shared by several layers is quantized once.

    Raises ConfigError for an unknown quantizer.
    """
    started = time.perf_counter()
    rule = rule_of(quantizer, prepared.profile)
    widths = sorted({MAX_BITS, *bits}, reverse=True)
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
    """The number format of a named quantizer."""
    if quantizer == "profile":
        return profile.weights
    if quantizer not in QUANTIZERS:
        raise ConfigError(f"quantizer {quantizer!r} is none of {', '.join(QUANTIZERS)}, profile")
    return QUANTIZERS[quantizer]


__all__ = ["QUANTIZERS", "WIDTHS", "ErrorTable", "error_table", "rule_of"]
