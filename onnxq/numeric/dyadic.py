"""Dyadic rescaling: a real factor as an integer multiplication and a shift, r ≈ b / 2^c (HAWQ-V3, section III).

This module is the definition: every kernel and every function body gives the same integers, bit for bit. b is the
`multiplier`, 0 ≤ b ≤ 2³¹ − 1, and c the `shift`, 1 ≤ c ≤ 62. The rescale of k terms has one shift and one rounding,

    y = sat(((Σ term_i · b_i + 2^(c−1)) >> c) + zero_point)

in 64-bit integers: arithmetic shift, so half rounds up; saturated to [qmin, qmax] from the 64-bit value. The functions
that choose (b, c) prove |Σ term_i · b_i| + 2^(c−1) < 2⁶³ from bounds of the terms. Only (b, c) are computed in floating
point. docs/arithmetic.md derives the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.errors import NumericError

INT32_MAX = (1 << 31) - 1
MULTIPLIER_MAX = INT32_MAX
SHIFT_MIN = 1
SHIFT_MAX = 62
FIXED_SHIFT = 32
# Below this a rescaled int32 is always 0: 2³¹ · r < 1/2.
RATIO_MIN = 2.0**-32
SUM_MAX = (1 << 63) - 1
# The rescale that leaves an int32 accumulator unchanged. Any b = 2^c would do.
IDENTITY = (2, 1)
# "auto" uses the fixed shift where its error is below this part of one step of an 8-bit result; about the same share of
# results differs from exact arithmetic, and 1 in 1000 is acceptable.
FIXED_ERROR_MAX = 2.0**-9
EIGHT_BIT_SPAN = 256.0

Form = Literal["auto", "fixed", "general"]
Int32s = NDArray[np.int32]


@dataclass(frozen=True)
class Rescale:
    """The numbers of one rescale, as inputs of an operator.

    multipliers: int32, one array per term, 1-D or more. shift: int32, shape (1,) or that of every multiplier.
    form: "fixed" (c = 32 for the whole operator) or "general". error: the largest Σ_i bound_i · |b_i/2^c − r_i|, in
    steps of the result: the error from rounding the factors, before saturation.
    """

    multipliers: tuple[Int32s, ...]
    shift: Int32s
    form: Literal["fixed", "general"]
    error: float


def dyadic(r: ArrayLike, shift_max: int = SHIFT_MAX) -> tuple[Int32s, Int32s]:
    """(multiplier, shift), int32, shape of r, with r ≈ multiplier / 2^shift for each element separately.

    The shift is the largest up to shift_max with b = round(r · 2^c) ≤ 2³¹ − 1 (ties to even; r · 2^c is exact), so
    |b/2^c − r| ≤ 2^−(c+1), and relative to r at most 2⁻³¹ while c < shift_max. r < 2⁻³² gives b = 0.
    Raises NumericError if r is negative, not finite, or at least 2³⁰ − 1/4.
    """
    ratio = _checked(r)
    shift = _largest_shift(ratio, shift_max)
    multiplier = np.where(ratio < RATIO_MIN, 0, _scaled(ratio, shift))
    return multiplier.astype(np.int32), shift.astype(np.int32)


def dyadic_fixed(r: ArrayLike, shift: int = FIXED_SHIFT) -> tuple[Int32s, Int32s]:
    """(multiplier, shift) with the same shift for all elements: multiplier int32, shape of r; shift int32 (1,).

    |b/2^c − r| ≤ 2^−(c+1); r < 2⁻³² gives b = 0. Raises NumericError if a multiplier would exceed 2³¹ − 1: for
    shift 32, from r = 1/2 − 2⁻³³ on.
    """
    ratio = _checked(r)
    multiplier = _scaled(ratio, np.asarray(shift))
    if np.any(multiplier > MULTIPLIER_MAX):
        raise NumericError(f"the fixed shift of {shift} needs factors below {2.0 ** (31 - shift)}, got {ratio.max()}")
    return np.where(ratio < RATIO_MIN, 0, multiplier).astype(np.int32), np.asarray([shift], np.int32)


def dyadic_sum(rs: Sequence[ArrayLike], bounds: Sequence[ArrayLike]) -> tuple[tuple[Int32s, ...], Int32s]:
    """(multipliers, shift) of a sum of terms: int32, all with the shape that rs broadcast to.

    rs: one factor per term, scalar or per channel. bounds: integers ≥ |term_i|, likewise. Per channel the shift is the
    largest with every b_i ≤ 2³¹ − 1 and Σ bound_i · b_i + 2^(c−1) < 2⁶³.
    Raises NumericError for factors that `dyadic` rejects, or if no shift fits the bounds.
    """
    ratios = np.broadcast_arrays(*(_checked(r) for r in rs))
    reach = [_integers(b) for b in bounds]
    shift = _largest_shift(np.max(ratios, axis=0), SHIFT_MAX)
    while True:
        multipliers = [_scaled(r, shift) for r in ratios]
        over = ~np.asarray(_sum_bound(multipliers, reach, shift) <= SUM_MAX, bool)
        if not over.any():
            return tuple(m.astype(np.int32) for m in multipliers), shift.astype(np.int32)
        shift = shift - over
        if np.any(shift < SHIFT_MIN):
            raise NumericError("a sum of terms this large does not fit 64-bit integers at any shift")


def choose(rs: Sequence[ArrayLike], bounds: Sequence[ArrayLike], form: Form = "auto") -> Rescale:
    """The rescale of one operator with one or more terms, each with a factor r.

    rs: one factor per term, scalar, per channel, or by position; bounds: integers ≥ |term_i|, likewise. Results have at
    least one axis, as operators require.
    "fixed": c = 32 everywhere; raises NumericError if a multiplier or the sum does not fit.
    "general": the largest shift per channel (`dyadic`, `dyadic_sum`).
    "auto": fixed if it fits and its error, for 8-bit results, is below FIXED_ERROR_MAX; else general.
    """
    ratios = [np.atleast_1d(_checked(r)) for r in rs]
    reach = [_integers(b) for b in bounds]
    if len(ratios) != len(reach) or not ratios:
        raise NumericError(f"{len(ratios)} factors for {len(reach)} terms")
    multipliers: tuple[Int32s, ...]
    if form == "fixed" or (form == "auto" and _fixed_serves(ratios, reach)):
        multipliers, shift = _fixed_sum(ratios, reach)
        return Rescale(multipliers, shift, "fixed", _error(ratios, multipliers, shift, reach))
    if len(ratios) == 1 and int(np.max(reach[0], initial=0)) <= 1 << 31:
        # |term| · b + 2^(c−1) ≤ 2³¹ · (2³¹ − 1) + 2⁶¹ < 2⁶³: no need for the search in dyadic_sum.
        alone, shift = dyadic(ratios[0])
        multipliers = (alone,)
    else:
        multipliers, shift = dyadic_sum(ratios, reach)
    return Rescale(multipliers, shift, "general", _error(ratios, multipliers, shift, reach))


def error_bound(r: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """|multiplier / 2^shift − r|, float64, exact for pairs made here: the error per unit of the term.

    Before rounding, the rescale of a term t is off by at most |t| times this, in steps of the result.
    """
    b, c = np.asarray(multiplier), np.asarray(shift)
    return np.asarray(np.abs(np.ldexp(b.astype(np.float64), -c.astype(np.int32)) - np.asarray(r, np.float64)))


def rescale(
    terms: Sequence[ArrayLike],
    multipliers: Sequence[ArrayLike],
    shift: ArrayLike,
    zero_point: int = 0,
    qmin: int = -(1 << 31),
    qmax: int = INT32_MAX,
) -> NDArray[np.int64]:
    """sat(((Σ term_i · b_i + 2^(c−1)) >> c) + zero_point), int64; terms, multipliers and shift broadcast together.

    terms: integers, zero points already subtracted. Raises NumericError for a multiplier or shift out of range, and if
    a sum does not fit 64 bits: kernels would wrap there, and lowering proves that it never happens.
    """
    values = [np.asarray(t, np.int64) for t in terms]
    factors = [np.asarray(m, np.int64) for m in multipliers]
    c = np.asarray(shift, np.int64)
    if np.any((c < SHIFT_MIN) | (c > SHIFT_MAX)) or any(np.any((b < 0) | (b > MULTIPLIER_MAX)) for b in factors):
        raise NumericError("a multiplier outside 0 … 2³¹ − 1 or a shift outside 1 … 62")
    largest = sum(_largest(t) * _largest(b) for t, b in zip(values, factors, strict=True))
    half = np.int64(1) << (c - 1)
    if largest + _largest(half) > SUM_MAX:
        # The bound is too coarse: compute each element with unlimited integers.
        products = [t.astype(object) * b for t, b in zip(values, factors, strict=True)]
        exact = np.asarray(sum(products) + half.astype(object))
        if np.any((exact > SUM_MAX) | (exact < -SUM_MAX - 1)):
            raise NumericError("a sum of rescaled terms does not fit 64-bit integers")
        total = exact.astype(np.int64)
    else:
        total = np.asarray(sum(t * b for t, b in zip(values, factors, strict=True)) + half)
    return np.clip((total >> c) + zero_point, qmin, qmax)


def accumulator_bound(bias: ArrayLike, reduction: int, max_abs_x: int, max_abs_w: int) -> NDArray[np.int64]:
    """|bias| + reduction · max|x − zero_point| · max|w − w_zero_point|, int64, shape of bias: bounds |accumulator|.

    reduction: products per sum. Independent of the weights; `weighted_bound` is tighter.
    """
    return np.abs(np.asarray(bias, np.int64)) + reduction * max_abs_x * max_abs_w


def weighted_bound(w: NDArray, bias: ArrayLike, x_low: int, x_high: int, axis: int = 0) -> NDArray[np.int64]:
    """The largest |accumulator| per output channel for these weights, int64 (channels,). The bound is attained.

    w: integers, zero point already subtracted, output channels along `axis`. bias: (channels,).
    x_low ≤ 0 ≤ x_high: the range of x − zero_point; padding contributes 0.
    """
    rows = np.moveaxis(np.asarray(w, np.int64), axis, 0)
    rows = rows.reshape(rows.shape[0], -1 if rows.size else 0)
    up, down = np.maximum(rows, 0).sum(axis=1), np.maximum(-rows, 0).sum(axis=1)
    constant = np.asarray(bias, np.int64)
    low, high = min(x_low, 0), max(x_high, 0)
    highest = constant + high * up - low * down
    lowest = constant + low * up - high * down
    return np.maximum(np.abs(highest), np.abs(lowest))


def fits_accumulator(bound: ArrayLike) -> bool:
    """Whether accumulators with these bounds fit int32."""
    return bool(np.all(np.asarray(bound) <= INT32_MAX))


def _checked(r: ArrayLike) -> NDArray[np.float64]:
    ratio = np.asarray(r, np.float64)
    if not np.all(np.isfinite(ratio) & (ratio >= 0)):
        raise NumericError("a rescale by a factor that is negative or not finite: the model's scales are invalid")
    return ratio


def _scaled(ratio: NDArray[np.float64], shift: NDArray) -> NDArray[np.int64]:
    """round(r · 2^c) as int64, at most 2³¹."""
    with np.errstate(over="ignore", under="ignore"):
        return np.rint(np.minimum(np.ldexp(ratio, shift.astype(np.int32)), 2.0**31)).astype(np.int64)


def _largest_shift(ratio: NDArray[np.float64], shift_max: int) -> NDArray[np.int64]:
    """The largest shift up to shift_max for which each multiplier fits."""
    _, exponent = np.frexp(ratio)  # r = mantissa · 2^exponent with 1/2 ≤ mantissa < 1
    shift = np.minimum(31 - exponent.astype(np.int64), shift_max)
    shift = np.where(ratio == 0, shift_max, shift)
    shift = shift - (_scaled(ratio, shift) > MULTIPLIER_MAX)  # a mantissa that rounds up to 1
    if np.any(shift < SHIFT_MIN):
        raise NumericError(
            f"a rescale by {ratio.max()}: factors from 2³⁰ on do not fit a 31-bit multiplier; "
            "the scale of the result is far too small for its inputs"
        )
    return shift


def _sum_bound(multipliers: Sequence[NDArray], bounds: Sequence[NDArray], shift: NDArray) -> Any:
    """Σ bound_i · b_i + 2^(c−1) in unlimited integers."""
    terms = [m.astype(object) * b for m, b in zip(multipliers, bounds, strict=True)]
    return np.asarray(sum(terms) + (np.int64(1) << (shift - 1)).astype(object))


def _integers(bounds: ArrayLike) -> NDArray:
    """Bounds as unlimited integers."""
    values = np.asarray(bounds)
    return np.asarray(np.ceil(values).astype(object) if values.dtype.kind == "f" else values.astype(object))


def _largest(values: NDArray[np.int64]) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _fixed_sum(ratios: Sequence[NDArray[np.float64]], bounds: Sequence[NDArray]) -> tuple[tuple[Int32s, ...], Int32s]:
    """Multipliers for the fixed shift, each with the shape of its factor. Raises NumericError if they do not fit."""
    found = [_scaled(r, np.asarray(FIXED_SHIFT)) for r in ratios]
    shift = np.asarray([FIXED_SHIFT], np.int32)
    if any(np.any(b > MULTIPLIER_MAX) for b in found):
        raise NumericError(f"the fixed shift needs factors below 0.5, got {max(float(r.max()) for r in ratios)}")
    if np.any(_sum_bound(found, bounds, shift.astype(np.int64)) > SUM_MAX):
        raise NumericError("with the fixed shift the sum of the terms does not fit 64-bit integers")
    if len(ratios) == 1:
        found = [np.where(ratios[0] < RATIO_MIN, 0, found[0])]
    return tuple(b.astype(np.int32) for b in found), shift


def _fixed_serves(ratios: Sequence[NDArray[np.float64]], bounds: Sequence[NDArray]) -> bool:
    try:
        multipliers, shift = _fixed_sum(ratios, bounds)
    except NumericError:
        return False
    error: Any = 0.0
    for r, b, bound in zip(ratios, multipliers, bounds, strict=True):
        with np.errstate(divide="ignore"):
            seen = np.minimum(bound.astype(np.float64), EIGHT_BIT_SPAN / r)  # beyond it the result saturates
        error = error + seen * error_bound(r, b, shift)
    return bool(np.max(error, initial=0.0) <= FIXED_ERROR_MAX)


def _error(
    ratios: Sequence[NDArray[np.float64]], multipliers: Sequence[Int32s], shift: Int32s, bounds: Sequence[NDArray]
) -> float:
    errors = (
        error_bound(r, b, shift) * bound.astype(np.float64)
        for r, b, bound in zip(ratios, multipliers, bounds, strict=True)
    )
    return float(np.max(sum(errors), initial=0.0))
