"""Results of `compare`, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from onnxq.measure.tables import csv_text
from onnxq.records import plain

COLUMNS = (
    "position", "tensor", "node", "op", "sqnr_db", "cosine", "max_abs_error", "isolated_sqnr_db", "bits", "weight_bits",
    "weight_sqnr_db",
)  # fmt: skip


@dataclass(frozen=True)
class TensorRow:
    """One activation. SQNR in dB; math.inf if equal.

    position: in the float model's order. node, op: its producer in the quantized model, "Conv+Relu" if Q/DQ performs
    the Relu; "" and "input" for graph inputs. max_abs_error: in the tensor's own unit. bits: of its Q/DQ, None without.
    isolated_sqnr_db: of the error that the layer adds when fed the float model's values; None unless requested.
    weight_bits, weight_sqnr_db: of the layer's weight; None without one.
    """

    position: int
    tensor: str
    node: str
    op: str
    sqnr_db: float
    cosine: float
    max_abs_error: float
    bits: int | None = None
    weight_bits: int | None = None
    weight_sqnr_db: float | None = None
    isolated_sqnr_db: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Every activation that both models have, compared on the same samples.

    rows: worst first (lowest SQNR, then cosine). skipped: float activations that the quantized model lacks. data:
    description of the source.
    """

    float_model: str
    quantized_model: str
    samples: int
    rows: tuple[TensorRow, ...]
    skipped: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; an SQNR without error is None."""
        return plain(asdict(self))

    def to_csv(self) -> str:
        """The rows as CSV, worst first, with a heading."""
        return csv_text(COLUMNS, map(asdict, self.rows))
