"""Per-channel scale and shift, and folding them into a linear layer. NumPy only, computed in float64.

BatchNormalization   y = gamma * (x - mean) / sqrt(var + epsilon) + beta  =  a * x + b
                     a = gamma / sqrt(var + epsilon),  b = beta - a * mean
after a layer        a * (W u + c) + b  =  (a W) u + (a c + b)
before a layer       W (a u + b) + c    =  (W a) u + (c + sum(W b))
a chain of two       a2 * (a1 * x + b1) + b2  =  (a2 a1) * x + (a2 b1 + b2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Affine:
    """a * x + b elementwise. a, b: float64 arrays that broadcast against each other and against x."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]

    def then(self, after: Affine) -> Affine:
        """The composition: this one first, then `after`."""
        return Affine(np.asarray(after.a * self.a), np.asarray(after.a * self.b + after.b))

    @property
    def is_finite(self) -> bool:
        """Whether all values are finite: nothing overflowed and nothing was divided by zero."""
        return bool(np.all(np.isfinite(self.a)) and np.all(np.isfinite(self.b)))


def scale(c: ArrayLike) -> Affine:
    """c * x."""
    return Affine(np.asarray(c).astype(np.float64), np.zeros(()))


def shift(c: ArrayLike) -> Affine:
    """x + c."""
    return Affine(np.ones(()), np.asarray(c).astype(np.float64))


def reciprocal(c: ArrayLike) -> NDArray[np.float64]:
    """1 / c, infinite where c is 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.asarray(c).astype(np.float64))


def batch_norm(gamma: ArrayLike, beta: ArrayLike, mean: ArrayLike, var: ArrayLike, epsilon: float) -> Affine:
    """BatchNormalization in inference as a, b of shape (channels,). Not finite where var + epsilon <= 0."""
    gamma64, beta64, mean64, var64 = (np.asarray(v).astype(np.float64) for v in (gamma, beta, mean, var))
    with np.errstate(divide="ignore", invalid="ignore"):
        a = gamma64 / np.sqrt(var64 + epsilon)
        return Affine(a, beta64 - a * mean64)


def scale_axis(weight: NDArray[Any], a: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The weight with slice i along `axis` multiplied by a[i]. a: shape (weight.shape[axis],); result float64."""
    return weight.astype(np.float64) * a.reshape([-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)])


def scale_grouped(weight: NDArray[Any], a: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """The weight of a grouped convolution scaled along the channels that are split by group over axes 0 and 1.

    weight: (groups * n, m, ...); a: (groups * m,). Rows of group g use a[g * m : (g + 1) * m] along axis 1. These are
    the input channels of a Conv (weight M x C/g) and the output channels of a ConvTranspose (weight C x M/g).
    """
    rows, inner = weight.shape[:2]
    per_row = np.repeat(a.reshape(groups, inner), rows // groups, axis=0)
    return weight.astype(np.float64) * per_row.reshape(rows, inner, *[1] * (weight.ndim - 2))


def response(weight: NDArray[Any], b: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Output of an unpadded convolution for the constant input b[channel]: shape (M,).

    weight: (M, C/groups, kernel...); b: (C,).
    """
    taps = weight.astype(np.float64).sum(axis=tuple(range(2, weight.ndim)))
    per_row = np.repeat(b.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return np.asarray((taps * per_row).sum(axis=1))


def store(values: NDArray[np.float64], dtype: Any) -> NDArray[Any] | None:
    """The values in a float type (float32, float16, bfloat16, float64), or None if one overflows."""
    with np.errstate(over="ignore"):
        stored = np.asarray(values).astype(dtype)
    return stored if np.all(np.isfinite(stored.astype(np.float64)) | ~np.isfinite(values)) else None
