"""Arithmetic shared by the integer operators: zero points, accumulators, rescale, saturate, store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.errors import NumericError
from onnxq.numeric.dyadic import rescale
from onnxq.numeric.quantize import along_axis

Integers = NDArray[Any]

# `y_type`: ONNX's element type numbers.
TYPES: dict[int, type[np.integer[Any]]] = {2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32}


def rescaled(
    terms: Sequence[ArrayLike],
    multipliers: Sequence[ArrayLike],
    shift: ArrayLike,
    *,
    y_zero_point: int,
    qmin: int,
    qmax: int,
    y_type: int,
) -> Integers:
    """`dyadic.rescale` stored in y's type. Raises NumericError for a range outside the type."""
    dtype = result_type(qmin, qmax, y_type)
    return np.asarray(rescale(terms, multipliers, shift, y_zero_point, qmin, qmax)).astype(dtype)


def saturated(values: NDArray[np.int64], *, y_zero_point: int, qmin: int, qmax: int, y_type: int) -> Integers:
    """sat(values + y_zero_point) in y's type. Raises NumericError for a range outside the type."""
    return np.asarray(np.clip(values + y_zero_point, qmin, qmax)).astype(result_type(qmin, qmax, y_type))


def result_type(qmin: int, qmax: int, y_type: int) -> type[np.integer[Any]]:
    """The type of y. Raises NumericError for an unknown type, or if [qmin, qmax] is not a range within it."""
    if y_type not in TYPES:
        raise NumericError(f"element type {y_type} of y: it must be 2 (uint8), 3 (int8), 5 (int16) or 6 (int32)")
    limits = np.iinfo(TYPES[y_type])
    if not limits.min <= qmin <= qmax <= limits.max:
        raise NumericError(f"the range [{qmin}, {qmax}] of y is not a range within {limits.dtype}")
    return TYPES[y_type]


def accumulated(values: NDArray, what: str) -> NDArray[np.int64]:
    """Exact sums as int64. Raises NumericError if one does not fit the int32 accumulator of the kernels."""
    if values.size and (values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min):
        raise NumericError(f"{what} does not fit a 32-bit accumulator: {values.min():.0f} to {values.max():.0f}")
    return values.astype(np.int64)


def centred(x: Integers, zero_point: int) -> NDArray[np.int64]:
    """x − zero_point in 64 bits."""
    return x.astype(np.int64) - zero_point


def aligned(vector: Integers, axis: int, rank: int) -> Integers:
    """A vector [1] or [C], reshaped to broadcast along `axis` of a tensor of this rank."""
    return vector if vector.size == 1 else along_axis(vector, axis, rank)
