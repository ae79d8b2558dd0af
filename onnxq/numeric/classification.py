"""Class scores: the top class, the rank of the true class, the distance between two distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Row sums of a softmax output are this close to 1, both in float32 and after 8-bit quantization of the reference.
SUM_TOLERANCE = 1e-2
PROBABILITY_MIN = 1e-12


@dataclass(frozen=True)
class Scores:
    """An output with one score per class: all axes except the first and the class axis have length 1."""

    output: str
    classes: int

    @classmethod
    def choose(cls, shapes: Mapping[str, tuple[int, ...]], samples: int) -> Scores | None:
        """The only output with class scores for this many samples; None if there is none or more than one."""
        found = []
        for name, shape in shapes.items():
            long = [d for d in shape[1:] if d != 1]
            if shape and shape[0] == samples and len(long) == 1 and long[0] >= 2:
                found.append(cls(name, long[0]))
        return found[0] if len(found) == 1 else None

    def rows(self, values: NDArray, samples: int) -> NDArray[np.float64]:
        """Scores as (samples, classes), float64; rows with a NaN are all NaN."""
        rows = values.reshape(samples, self.classes).astype(np.float64)
        rows[np.isnan(rows).any(axis=1)] = np.nan
        return rows


def top_classes(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the highest score per row, the first among equals; −1 for a row of NaN. scores: (n, classes)."""
    broken = np.isnan(scores).any(axis=1)
    return np.where(broken, -1, np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)).astype(np.int64)


def true_ranks(scores: NDArray[np.float64], labels: NDArray) -> NDArray[np.int64]:
    """Number of classes ranked above the true one, (n,): higher scores, and equal ones with a smaller index.

    scores: (n, classes). labels: (n,), valid class indices. A row with a NaN ranks last.
    """
    true = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < np.asarray(labels)[:, None]
    ranks = ((scores > true) | ((scores == true) & earlier)).sum(axis=1)
    return np.where(np.isnan(scores).any(axis=1), scores.shape[1], ranks).astype(np.int64)


def is_probability(scores: NDArray[np.float64]) -> bool:
    """Whether every row is a distribution (a softmax output), not logits."""
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1.0) < SUM_TOLERANCE).all())


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64], probability: bool) -> NDArray[np.float64]:
    """KL(p ‖ q) per row in nats, (n,). probability: the rows are distributions; else they are logits.

    Distributions are clipped below at 1e-12 and scaled to sum to 1, so that a probability quantized to 0 has a finite
    cost.
    """
    log_p, log_q = (_log_probabilities(x, probability) for x in (p, q))
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0)


def _log_probabilities(scores: NDArray[np.float64], probability: bool) -> NDArray[np.float64]:
    if probability:
        clipped = np.maximum(scores, PROBABILITY_MIN)
        return np.log(clipped / clipped.sum(axis=1, keepdims=True))
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
