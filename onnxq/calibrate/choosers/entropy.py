"""Ranges that minimize the Kullback-Leibler divergence, as in TensorRT (Migacz, "8-bit Inference with TensorRT", 2017).

    for i from `levels` to 2048:                     # keep the first i of 2048 linear bins of |x|
        P = bins[:i];  P[i−1] += sum(bins[i:])       # reference: what is clipped lands in the last bin
        Q = bins[:i] merged into `levels` groups, each group spread evenly over its non-empty bins
        divergence[i] = KL(P / ΣP ‖ Q / ΣQ)
    threshold = the edge after the first m bins, m = argmin divergence

Where the slides leave it open: bin j belongs to group ⌊j · levels / i⌋; a Q of 0 where P is not gives an infinite
divergence; i = 2048, which clips nothing, is a candidate; among equal divergences the largest threshold wins. Zeros
are excluded from the bins: every scale represents 0 exactly, but the spike at 0 after a ReLU would be spread over its
group, and the threshold would shrink to keep that group narrow (rectified normal data at 8 bits: 38 % of the maximum
instead of 91 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.buckets import magnitude_buckets
from onnxq.calibrate.ranges import RangeChooser
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat

BINS = 2048
# Divergences closer than this count as equal: their difference is rounding.
TIE = 1e-12


@dataclass(frozen=True)
class Entropy(RangeChooser):
    """The range (−t, t), with the threshold t on |x| that minimizes the KL divergence (TensorRT's calibration)."""

    name: ClassVar[str] = "entropy"

    def choose(self, stats: TensorStatistics, fmt: QuantFormat) -> tuple[float, float]:
        edge, histogram = linear_histogram(stats)
        divergence = divergences(histogram, levels(stats, fmt))
        kept = BINS - int(np.argmax(divergence[::-1] <= divergence.min() + TIE))
        limit = edge * (kept / BINS)
        return -limit, limit


def levels(stats: TensorStatistics, fmt: QuantFormat) -> int:
    """Number of codes on [0, max|x|].

    2^(b−1) in symmetric signed formats and for balanced signed tensors; 2^b for tensors with only one sign in an
    affine or unsigned format; between the two for asymmetric tensors in affine formats, by their extremes.
    """
    if fmt.symmetric:
        return 1 << (fmt.bits - 1 if fmt.signed else fmt.bits)
    low, high = min(stats.minimum, 0.0), max(stats.maximum, 0.0)
    return min(max(round((1 << fmt.bits) * max(-low, high) / (high - low)), 1 << (fmt.bits - 1)), 1 << fmt.bits)


def linear_histogram(stats: TensorStatistics) -> tuple[float, NDArray[np.int64]]:
    """max|x| and the counts of |x| in 2048 equal bins from 0 to it, (2048,) int64; the zero bucket is excluded.

    A logarithmic bucket is spread evenly over the bins it overlaps; the cumulative count is rounded at each edge, so
    that bins have integer counts: fractions of a value in otherwise empty bins would move the threshold.
    """
    buckets = magnitude_buckets(stats, with_zeros=False)
    edge = float(buckets.high[-1])
    points = np.stack([buckets.low, buckets.high], axis=1).ravel()
    cumulative = np.cumsum(buckets.count)
    at_points = np.stack([cumulative - buckets.count, cumulative], axis=1).ravel().astype(np.float64)
    below = np.rint(np.interp(np.linspace(0.0, edge, BINS + 1), points, at_points)).astype(np.int64)
    below[0], below[-1] = 0, cumulative[-1]
    return edge, np.diff(below)


def divergences(histogram: NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """KL(P‖Q) in nats for each number of kept bins 1 … len(histogram), float64; inf if it is not a candidate.

    With c the count and k the non-empty bins of a group, and K the values kept of all N,
    Σ p·log(p/q) = (Σ b·log b over P − Σ c·log(c/k) − clipped·log(c/k of the last group)) / N − log N + log K.
    """
    bins = histogram.size
    result = np.full(bins, np.inf)
    kept = np.arange(min(levels, bins), bins + 1)
    # Prefix sums: [i] covers the first i bins.
    count = np.concatenate([[0], np.cumsum(histogram)])
    occupied = np.concatenate([[0], np.cumsum(histogram > 0)])
    plain = np.concatenate([[0.0], np.cumsum(_xlogx(histogram))])
    # Group g contains the bins j with floor(j · levels / i) = g: from ceil(g · i / levels) on.
    edges = -(-np.arange(levels + 1)[None, :] * kept[:, None] // levels)
    in_group = np.diff(count[edges], axis=1)
    log_mean = np.log(np.maximum(in_group, 1) / np.maximum(np.diff(occupied[edges], axis=1), 1))

    total = int(count[-1])
    last = histogram[kept - 1]
    clipped = total - count[kept]
    reference = plain[kept] - _xlogx(last) + _xlogx(last + clipped)
    candidate = (in_group * log_mean).sum(axis=1) + clipped * log_mean[:, -1]
    usable = (count[kept] > 0) & ((last > 0) | (clipped == 0))
    result[kept[usable] - 1] = ((reference - candidate) / total - np.log(total) + np.log(np.maximum(count[kept], 1)))[
        usable
    ]
    return result


def _xlogx(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts.astype(np.float64) * np.log(np.maximum(counts, 1))
