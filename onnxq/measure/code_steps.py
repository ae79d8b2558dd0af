"""Differences between expected and computed values of a tensor, in steps (LSB) of its codes, summed over batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A float tensor has no quantization step: that of a symmetric 8-bit tensor is used.
FLOAT_STEPS = 127
# A step of 16-bit codes is one of 12 bits: sums in float32 say no more.
SIXTEEN_BIT_STEP = 16.0


class StepTally:
    """Running counts of one tensor.

    scale: size of a step, shaped to broadcast; 1 for tensors of codes (of 16 bits, a step is 16 of them). None for
    float tensors: a step is then 1/127 of the largest magnitude so far, and an element differs if it is off by more
    than half a step.
    """

    def __init__(self, scale: NDArray | float | None) -> None:
        self.scale = scale
        self.largest = self.reference = 0.0
        self.differ = self.elements = 0

    def add(self, expected: NDArray, found: NDArray) -> None:
        """Add one batch; both arrays have the same shape."""
        apart = np.atleast_1d(np.abs(expected.astype(np.float64) - found.astype(np.float64)))  # 0-d: also an array
        apart[np.isnan(apart)] = np.inf  # NaN on one side, or infinite on both
        self.elements += apart.size
        if self.scale is not None:
            is_wide = expected.dtype in (np.int16, np.uint16)
            apart = np.rint(apart / (SIXTEEN_BIT_STEP if is_wide else self.scale))
            self.differ += int(np.count_nonzero(apart))
        else:
            self.reference = max(self.reference, float(np.abs(expected).max(initial=0.0)))
            self.differ += int(np.count_nonzero(apart > self.reference / FLOAT_STEPS / 2))
        self.largest = max(self.largest, float(apart.max(initial=0.0)))

    @property
    def max_lsb(self) -> float:
        """Largest difference, in steps."""
        step = 1.0 if self.scale is not None else self.reference / FLOAT_STEPS or 1.0
        return self.largest / step

    @property
    def share(self) -> float:
        """Share of elements that differ, 0 to 1."""
        return self.differ / self.elements if self.elements else 0.0
