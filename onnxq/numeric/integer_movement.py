"""ChannelsLast of com.onnxq in NumPy."""

from __future__ import annotations

import numpy as np

from onnxq.numeric.integer_output import Integers


def channels_last(x: Integers) -> Integers:
    """x [N, C, d1, d2, …] as [N, d1, d2, …, C]: 8-bit, of 3 dimensions or more."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))
