"""Losses of a batch of outputs and their curvature: Gauss–Newton forms, never negative, and differences of the loss."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: NDArray) -> Array:
    """Class probabilities of logits along the last axis, float64."""
    shifted = z.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def log_softmax(z: NDArray) -> Array:
    """Logarithms of the class probabilities along the last axis, float64."""
    shifted = z.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(z: NDArray, target: Array) -> float:
    """Mean over rows of −Σ target · log softmax(z), in nats. z, target: (rows, classes)."""
    return float(-(target * log_softmax(z)).sum(axis=-1).mean())


def kl_from(z: NDArray, target: Array) -> float:
    """Mean over rows of KL(target ‖ softmax(z)), in nats. target: (rows, classes), distributions."""
    log_target = np.log(np.maximum(target, np.finfo(np.float64).tiny))
    return max(float((target * (log_target - log_softmax(z))).sum(axis=-1).mean()), 0.0)


def cross_entropy_form(p: Array, jv: Array) -> float:
    """Mean over rows of Jvᵀ (diag p − p pᵀ) Jv: the variance of Jv under p. p, jv: (rows, classes)."""
    centred = jv - (p * jv).sum(axis=-1, keepdims=True)
    return float((p * centred * centred).sum(axis=-1).mean())


def squared_error_form(jv: Array) -> float:
    """2 ‖Jv‖² / n, n elements: the Gauss–Newton form of the mean squared error; 0 of no elements."""
    return 2.0 * float(np.mean(jv * jv)) if jv.size else 0.0


def second_difference(plus: float, middle: float, minus: float, step: float) -> float:
    """(L(w + εv) − 2 L(w) + L(w − εv)) / ε²."""
    return (plus - 2.0 * middle + minus) / (step * step)


def rademacher(shape: tuple[int, ...], seed: int, key: str, *counters: int) -> NDArray[np.float32]:
    """Independent ±1, float32; the same for the same seed, key (a layer's name) and counters (round, batch)."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode()), *counters])
    size = int(np.prod(shape))
    bits = np.unpackbits(np.frombuffer(rng.bytes((size + 7) // 8), np.uint8), count=size)
    return (bits.astype(np.float32) * 2 - 1).reshape(shape)
