"""What is proven."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnxq.graph.model import Model


@dataclass(frozen=True)
class Subject:
    """What is proven. reference: the float model (or, for lowering alone, the QDQ model). product: of it.

    qdq: the product before lowering, if it is integer-only. runtime: the profile's. what: the reference, in words.
    integer_only: no float operator is between its integers, so that kernels and function bodies are equal.
    weight_bits: widths of weights that the target supports, for advice.
    """

    reference: Model
    product: Model
    qdq: Model | None = None
    runtime: str = "onnxruntime"
    what: str = "float model"
    integer_only: bool = False
    weight_bits: Collection[int] = ()

    @property
    def quantized(self) -> Model | None:
        """The model with Q/DQ, in which layers can be looked at one by one."""
        return self.product if self.qdq is None and self.what == "float model" else self.qdq
