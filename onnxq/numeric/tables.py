"""Functions of one 8-bit value as tables of 256 codes: exact for any function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnxq.errors import NumericError

Reals = NDArray[np.float64]


def table(
    function: Callable[[Reals], NDArray],
    *,
    x_scale: float,
    x_zero_point: int,
    x_type: DTypeLike,
    y_scale: float,
    y_zero_point: int,
    y_type: DTypeLike,
    qmin: int,
    qmax: int,
) -> NDArray:
    """The codes of function(x) for every code of x in ascending order: [256] of y_type, uint8 or int8.

    function: float64 [256] in and out, as returned by `activations.activation`. Its argument and its result are rounded
    to float32, and the division by y_scale is in float32, as in DequantizeLinear → operator → QuantizeLinear; so the
    codes equal onnxruntime's, except where its own float32 function falls on the other side of a tie.
    Raises NumericError as `dequantized_codes` and `quantized` do.
    """
    reals = function(dequantized_codes(x_scale, x_zero_point, x_type))
    return quantized(reals, y_scale, y_zero_point, y_type, qmin, qmax)


def dequantized_codes(x_scale: float, x_zero_point: int, x_type: DTypeLike) -> Reals:
    """The real values of the 256 codes of a type in ascending order: float32 values stored as float64."""
    limits = np.iinfo(_eight_bit(x_type))
    codes = np.arange(limits.min, limits.max + 1)
    return ((codes - x_zero_point).astype(np.float32) * np.float32(x_scale)).astype(np.float64)


def quantized(reals: NDArray, y_scale: float, y_zero_point: int, y_type: DTypeLike, qmin: int, qmax: int) -> NDArray:
    """sat(round_half_even(real / y_scale) + y_zero_point) in y_type, any shape; infinities saturate, NaN gives qmin.

    Raises NumericError for a type that is not 8-bit, or for [qmin, qmax] outside the type.
    """
    dtype = _eight_bit(y_type)
    limits = np.iinfo(dtype)
    if not limits.min <= qmin <= qmax <= limits.max:
        raise NumericError(f"the range [{qmin}, {qmax}] of a table is not a range within {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(np.asarray(reals).astype(np.float32) / np.float32(y_scale))
    codes = np.clip(steps.astype(np.float64) + y_zero_point, qmin, qmax)
    return np.where(np.isnan(codes), qmin, codes).astype(dtype)


def _eight_bit(kind: DTypeLike) -> np.dtype:
    dtype = np.dtype(kind)
    if dtype not in (np.dtype(np.uint8), np.dtype(np.int8)):
        raise NumericError(f"tables are uint8 or int8, not {dtype}")
    return dtype
