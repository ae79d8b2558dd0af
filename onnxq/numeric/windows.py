"""Sliding windows over channels-last images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import NumericError


def taps(
    x: NDArray,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: float,
) -> Iterator[NDArray]:
    """For each window element, row by row, its values in all windows: [N, OH, OW, C], views of the padded x.

    x: [N, H, W, C]. pads: top, left, bottom, right, filled with `fill`. OH and OW are as in ONNX without ceil_mode.
    Raises NumericError if the window is larger than the padded image.
    """
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    spans = [d * (k - 1) for k, d in zip(kernel_shape, dilations, strict=True)]
    if spans[0] >= padded.shape[1] or spans[1] >= padded.shape[2]:
        raise NumericError(f"a window of {spans[0] + 1} × {spans[1] + 1} is larger than the image, {padded.shape[1:3]}")
    for i in range(kernel_shape[0]):
        row = i * dilations[0]
        rows = padded[:, row : padded.shape[1] - spans[0] + row : strides[0]]
        for j in range(kernel_shape[1]):
            column = j * dilations[1]
            yield rows[:, :, column : padded.shape[2] - spans[1] + column : strides[1]]
