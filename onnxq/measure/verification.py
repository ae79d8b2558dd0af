"""Results of `verify`, as data, and the bound that a layer must meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxq.measure.tables import csv_text
from onnxq.records import plain

# A layer fed the QDQ model's own codes: at most 1 LSB in at most 0.1 % of its elements.
MAX_LSB, MAX_SHARE = 1, 1e-3


@dataclass(frozen=True)
class LayerDifference:
    """One layer of the integer model, ending at a quantized tensor of the QDQ model or at a float output.

    layer, op: the node that makes the tensor. max_lsb: largest difference in steps when fed the QDQ model's codes.
    differ: number of the `elements` that differ then. drift_lsb, drift_share: likewise when the model runs by itself.
    Steps of a float output (quantized is False) are 1/127 of its largest magnitude.
    """

    layer: str
    op: str
    tensor: str
    quantized: bool
    max_lsb: float
    differ: int
    elements: int
    drift_lsb: float
    drift_share: float

    @property
    def share(self) -> float:
        """Share of elements that differ when fed, 0 to 1."""
        return self.differ / self.elements if self.elements else 0.0

    @property
    def within(self) -> bool:
        """Whether the layer meets the bound. Below 1000 elements one may differ: 0.1 % of them is less than one."""
        return self.max_lsb <= MAX_LSB and self.differ <= math.ceil(MAX_SHARE * self.elements)


@dataclass(frozen=True)
class OutputDifference:
    """A float output of the two models, each run by itself. sqnr_db: as in OutputDistance, None if equal.

    agreement: share of samples with the same top class; None if the output is not one score per class.
    """

    sqnr_db: float | None
    max_abs_error: float
    agreement: float | None


@dataclass(frozen=True)
class Verification:
    """Every layer of an integer model against its QDQ model, and the outputs of both.

    kernels: the tier that ran, None for function bodies. layers: worst first. missing: quantized tensors that the
    integer model does not have.
    """

    qdq_model: str
    integer_model: str
    samples: int
    kernels: str | None
    layers: tuple[LayerDifference, ...]
    outputs: Mapping[str, OutputDifference]
    missing: tuple[str, ...]

    @property
    def beyond(self) -> tuple[LayerDifference, ...]:
        """Layers that do not meet the bound."""
        return tuple(layer for layer in self.layers if not layer.within)

    @property
    def ok(self) -> bool:
        """Whether every layer meets the bound."""
        return not self.beyond

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; numbers that JSON cannot represent (infinite, NaN) are None."""
        rows = [asdict(layer) | {"share": layer.share, "within": layer.within} for layer in self.layers]
        return plain(asdict(self) | {"ok": self.ok, "layers": rows, "missing": list(self.missing)})

    def to_csv(self) -> str:
        """The layers as CSV, worst first, with a heading."""
        rows = self.to_dict()["layers"]
        return csv_text(list(rows[0]) if rows else ["layer"], rows)
