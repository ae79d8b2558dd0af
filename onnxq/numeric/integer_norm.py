"""Integer arithmetic of Softmax and LayerNorm, after I-BERT (Kim et al., 2021), and the constants of these operators.

I-BERT approximates exp by a polynomial; for an 8-bit input a table is used instead. The integer square root uses
Newton's iteration as in I-BERT, on a number shifted into [2⁶⁰, 2⁶²): a small variance is as exact as a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.errors import NumericError
from onnxq.numeric.dyadic import INT32_MAX, SHIFT_MAX, SHIFT_MIN, dyadic

# exp(0) in the table of Softmax: 20 bits, so that sums of 2²⁵ entries and everything computed from them fit 64 bits.
EXP_ONE = 1 << 20
SOFTMAX_SHIFT_MAX = 16
# LayerNorm: x is limited to 16 bits and rows to 2¹⁵ values, so that nothing exceeds 63 bits.
LAYER_NORM_LIMIT = 1 << 15
LAYER_NORM_LENGTH = 1 << 15
EPSILON_MAX = 1 << 61
BETA_MAX = 1 << 62
FRACTION_BITS = 20  # of a normalized value, which is at most sqrt(2¹⁵)


def exp_table(x_scale: float) -> NDArray[np.int32]:
    """int32 [256]: entry d is round(exp(−x_scale · d) · 2²⁰), for a value d steps below the largest."""
    return np.rint(np.exp(-float(x_scale) * np.arange(256)) * EXP_ONE).astype(np.int32)


def softmax_multiplier(y_scale: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(multiplier, shift) of Softmax, int32 [1] each: 1/y_scale ≈ b/2^c with c ≤ 16. Raises NumericError below 2⁻³⁰."""
    return dyadic([1.0 / y_scale], SOFTMAX_SHIFT_MAX)


def normalized(v: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(v · 4^h in [2⁶⁰, 2⁶²), 2^h) of integers 1 ≤ v < 2⁶²."""
    power = np.ones_like(v)
    for k in (16, 8, 4, 2, 1):
        short = v < np.int64(1) << (62 - 2 * k)
        v = np.where(short, v << (2 * k), v)
        power = np.where(short, power << k, power)
    return v, power


def integer_sqrt(v: NDArray[np.int64]) -> NDArray[np.int64]:
    """floor(sqrt(v)) of integers 2⁶⁰ ≤ v < 2⁶², exact: three steps of Newton's iteration and a correction.

    The start is the tangent at 1.5 · 2³⁰, at most 8.4 % above the root. A step squares the relative error and halves
    it, and never falls below floor(sqrt(v)); after three steps the value is at most 1 above that.
    """
    root = (3 << 28) + v // (3 << 30)
    for _ in range(3):
        root = (root + v // root) // 2
    return root - (root * root > v)


@dataclass(frozen=True)
class LayerNormConstants:
    """Constants of LayerNorm. gamma: int32 [n] or [1]. beta: int64, likewise. shift: int32 [1]. epsilon: an int."""

    gamma: NDArray[np.int32]
    beta: NDArray[np.int64]
    shift: NDArray[np.int32]
    epsilon: int


def layer_norm_constants(
    gamma: ArrayLike, beta: ArrayLike, epsilon: float, n: int, x_scale: float, y_scale: float
) -> LayerNormConstants:
    """The integers for y = gamma · (x − mean) / sqrt(variance + epsilon) + beta over rows of n values.

    gamma, beta: real, scalars or (n,). The shift is the largest with |gamma| ≤ 2³¹ − 1 and |beta| ≤ 2⁶².
    Raises NumericError if rows are too long or a number does not fit.
    """
    g = np.atleast_1d(np.asarray(gamma, np.float64)) / y_scale / (1 << FRACTION_BITS)
    b = np.atleast_1d(np.asarray(beta, np.float64)) / y_scale
    ratio = epsilon / float(x_scale) ** 2 * n**2
    if not (np.isfinite(g).all() and np.isfinite(b).all() and 0 <= ratio <= EPSILON_MAX and n <= LAYER_NORM_LENGTH):
        raise NumericError(
            f"a normalization over {n} values with epsilon {epsilon}, scales {x_scale} and {y_scale}: out of range"
        )
    shift = SHIFT_MAX
    while np.rint(np.ldexp(np.abs(g).max(), shift)) > INT32_MAX or np.ldexp(np.abs(b).max(), shift) > BETA_MAX:
        shift -= 1
    if shift < SHIFT_MIN:
        raise NumericError(f"a normalization whose result has a scale of {y_scale}: far too small for gamma or beta")
    whole_gamma = np.rint(np.ldexp(g, shift)).astype(np.int32)
    whole_beta = np.rint(np.ldexp(b, shift)).astype(np.int64)
    return LayerNormConstants(whole_gamma, whole_beta, np.asarray([shift], np.int32), round(ratio))
