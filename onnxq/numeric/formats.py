"""Integer number formats: bits, sign, symmetry, scale form; and the default choice of weight ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxq.errors import ConfigError

MIN_BITS = 2
MAX_BITS = 8
STORED_BITS = 16  # of residual sums
WeightRange = Literal["max", "mse"]
DEFAULT_WEIGHT_RANGE = "max at 8 bits, mse below"  # default_weight_range in words


def default_weight_range(bits: int) -> WeightRange:
    """The method of weight_qparams if the user chose none: clipping helps only below 8 bits."""
    return "max" if bits == 8 else "mse"


@dataclass(frozen=True)
class QuantFormat:
    """How integers represent real numbers: real = scale · (q − zero_point).

    bits: 2 to 8; 16 for residual sums that are stored. A width without its own ONNX type is stored in the next wider
    type with a narrower [qmin, qmax].
    signed: two's complement or unsigned.
    symmetric: zero_point is 0.
    narrow_range: omits the most negative code, so that −qmax … qmax is balanced.
    power_of_two: the scale is rounded up to 2^k.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    narrow_range: bool = False
    power_of_two: bool = False

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS and self.bits != STORED_BITS:
            raise ConfigError(f"{self.bits} bits: widths from {MIN_BITS} to {MAX_BITS} are supported")

    @property
    def qmin(self) -> int:
        """Smallest code."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.narrow_range else 0)

    @property
    def qmax(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def levels(self) -> int:
        """Number of codes, qmax − qmin + 1."""
        return self.qmax - self.qmin + 1

    def __str__(self) -> str:
        form = "symmetric" if self.symmetric else "affine"
        scale = ", power-of-two scale" if self.power_of_two else ""
        return f"{'int' if self.signed else 'uint'}{self.bits} {form}{scale}"
