"""Channels whose constant is lost.

All that a pruned channel has is its bias: the constant is its whole output. A weight scale that does not fit the bias
loses it, and the SQNR of the tensor hardly notices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.measure.code_steps import FLOAT_STEPS

# A channel is constant if it varies by at most this share of its middle, over at least so many values.
CONSTANT_SHARE, CONSTANT_VALUES = 0.1, 4
# It is lost if no value is closer than half of itself, or than the steps that rounding explains.
LOST_SHARE, LOST_STEPS = 0.5, 2.0


@dataclass(frozen=True)
class LostConstant:
    """A channel (axis 1) that is constant in the reference and something else in the product."""

    channel: int
    expected: float
    found: float


class ChannelTally:
    """Ranges of the channels of one tensor, in the reference and in the product, over any number of batches.

    step: of the tensor's codes; None is 1/127 of its largest magnitude. limits: what its codes can represent.
    """

    def __init__(self, step: float | None = None, limits: tuple[float, float] | None = None) -> None:
        self.step, self.limits = step, limits
        self.values = 0
        self.expected: NDArray | None = None  # (2, C): least and largest
        self.found: NDArray | None = None

    def add(self, expected: NDArray, found: NDArray) -> None:
        """Add one batch of (N, C, ...) arrays; others are ignored."""
        if expected.ndim < 2 or expected.shape != found.shape or not expected.size:
            return
        if self.expected is not None and self.expected.shape[1] != expected.shape[1]:
            return
        self.values += expected.size // expected.shape[1]
        self.expected, self.found = _wider(self.expected, expected), _wider(self.found, found)

    def constant(self) -> NDArray[np.bool_]:
        """Which channels are constant in the reference, clipped to what its codes represent; (C,)."""
        if self.expected is None or self.values < CONSTANT_VALUES:
            return np.zeros(0, np.bool_)
        low, high = self._clipped(self.expected)
        with np.errstate(invalid="ignore"):  # a channel of a mask is −∞: NaN, and so not constant
            found: NDArray[np.bool_] = high - low <= CONSTANT_SHARE * np.abs(low + high) / 2
        return found

    def lost(self) -> list[LostConstant]:
        """The lost channels, the largest constant first."""
        if self.expected is None or self.found is None or not self.constant().any():
            return []
        low, high = self._clipped(self.expected)
        step = self.step or float(np.abs(self.expected).max(initial=0, where=np.isfinite(self.expected))) / FLOAT_STEPS
        with np.errstate(invalid="ignore"):
            middle = (low + high) / 2
            apart = np.maximum(self.found[0] - middle, middle - self.found[1])
        lost = self.constant() & (apart > LOST_STEPS * step)
        lost &= apart > LOST_SHARE * np.abs(middle)
        channels = sorted(np.flatnonzero(lost), key=lambda c: -abs(middle[c]))
        return [LostConstant(int(c), float(middle[c]), float(self.found[:, c].mean())) for c in channels]

    def _clipped(self, ranges: NDArray) -> NDArray:
        return np.clip(ranges, *self.limits) if self.limits else ranges


def _wider(known: NDArray | None, values: NDArray) -> NDArray:
    """Ranges per channel, (2, C) in float64, extended to contain these values."""
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    low, high = values.min(axis=axes).astype(np.float64), values.max(axis=axes).astype(np.float64)
    if known is not None:
        low, high = np.minimum(known[0], low), np.maximum(known[1], high)
    return np.stack([low, high])
