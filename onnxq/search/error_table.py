"""The error that each weight width adds to every layer, from the weights alone."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.cost.prepared import Prepared, weights_of
from onnxq.errors import ConfigError
from onnxq.numeric.formats import MAX_BITS, MIN_BITS, QuantFormat
from onnxq.numeric.weight_error import relative_errors, weight_errors
from onnxq.profiles.schema import Profile, WeightRule

WIDTHS = tuple(range(MAX_BITS, MIN_BITS - 1, -1))
# MixQuant's quantizer and two others; "profile" uses the weight rule of the hardware profile.
QUANTIZERS = {
    "affine": WeightRule(signed=False, symmetric=False, narrow_range=False, granularity="per-tensor"),
    "symmetric": WeightRule(granularity="per-channel"),
    "power-of-two": WeightRule(granularity="per-tensor", power_of_two=True),
}
DEFAULT_QUANTIZER = "affine"
Measure = Callable[[NDArray, Sequence[QuantFormat], int | None], NDArray[np.float64]]


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
        """(node, mean squared error over that at 8 bits) at this width, largest first."""
        rows = [(node, self.relative(node, bits)) for node in self.errors]
        return sorted(rows, key=lambda row: -row[1])


def error_table(prepared: Prepared, quantizer: str = DEFAULT_QUANTIZER, bits: Sequence[int] = WIDTHS) -> ErrorTable:
    """Errors of every layer at 8 bits and at `bits`; a tensor shared by several layers is quantized once.

    Raises ConfigError for an unknown quantizer.
    """
    started = time.perf_counter()
    widths = sorted({MAX_BITS, *bits}, reverse=True)
    found, parameters = _each(prepared, quantizer, widths, weight_errors)
    errors = {node: dict(zip(widths, map(float, e), strict=True)) for node, e in found.items()}
    return ErrorTable(errors, parameters, quantizer, time.perf_counter() - started)


@dataclass(frozen=True)
class RelativeErrors:
    """Relative quantization errors of a model's layers (Kloberdanz & Le 2023, table 4).

    signed[node][bits]: RQE, the mean of (w − ŵ)/w over the weights that are not 0. magnitude: of |w − ŵ|/|w|.
    quantizer: its name.
    """

    signed: Mapping[str, Mapping[int, float]]
    magnitude: Mapping[str, Mapping[int, float]]
    parameters: Mapping[str, int]
    quantizer: str

    def most_sensitive(self, bits: int) -> list[str]:
        """Nodes, largest magnitude of RQE at this width first."""
        return sorted(self.signed, key=lambda node: -abs(self.signed[node][bits]))

    def to_csv(self) -> str:
        """One line per layer in the order of the model: RQE, then mean |w − ŵ|/|w|, at each width."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        widths = list(next(iter(self.signed.values()), {}))
        writer.writerow(["layer", "parameters", *(f"rqe_{b}" for b in widths), *(f"absolute_{b}" for b in widths)])
        for node in self.signed:
            values = [table[node][b] for table in (self.signed, self.magnitude) for b in widths]
            writer.writerow([node, self.parameters[node], *(f"{v:.9g}" for v in values)])
        return out.getvalue()


def relative_error_table(
    prepared: Prepared, quantizer: str = DEFAULT_QUANTIZER, bits: Sequence[int] = WIDTHS
) -> RelativeErrors:
    """Relative quantization errors of every layer at `bits`. Raises ConfigError for an unknown quantizer."""
    widths = sorted(set(bits), reverse=True)
    found, parameters = _each(prepared, quantizer, widths, relative_errors)
    signed, magnitude = (
        {node: dict(zip(widths, map(float, e[:, i]), strict=True)) for node, e in found.items()} for i in (0, 1)
    )
    return RelativeErrors(signed, magnitude, parameters, quantizer)


def _each(
    prepared: Prepared, quantizer: str, widths: Sequence[int], measure: Measure
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """(node → measurement at the widths, node → number of weights); a tensor of several layers is quantized once."""
    rule = rule_of(quantizer, prepared.profile)
    formats = [rule.format(b) for b in widths]
    done: dict[tuple[int, int | None], NDArray[np.float64]] = {}
    found, parameters = {}, {}
    for layer, values, channel in weights_of(prepared.layers):
        axis = channel if rule.granularity == "per-channel" and layer.weight_index == 1 else None
        key = (id(layer.weight), axis)
        if key not in done:
            done[key] = measure(values, formats, axis)
        found[layer.node.name] = done[key]
        parameters[layer.node.name] = values.size
    return found, parameters


def rule_of(quantizer: str, profile: Profile) -> WeightRule:
    """The number format of a named quantizer."""
    if quantizer == "profile":
        return profile.weights
    if quantizer not in QUANTIZERS:
        raise ConfigError(f"quantizer {quantizer!r} is none of {', '.join(QUANTIZERS)}, profile")
    return QUANTIZERS[quantizer]


__all__ = [
    "QUANTIZERS", "WIDTHS", "ErrorTable", "RelativeErrors", "error_table", "relative_error_table", "rule_of",
]  # fmt: skip
