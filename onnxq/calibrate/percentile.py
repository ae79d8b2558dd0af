"""Ranges that leave out the most extreme values (NVIDIA 2020, section 5.1)."""

from __future__ import annotations

from fractions import Fraction

from onnxq.calibrate.buckets import magnitude_buckets, value_buckets
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat


def choose(stats: TensorStatistics, percent: float, fmt: QuantFormat) -> tuple[float, float]:
    """The range (low, high) that holds `percent` percent of the values; stats must not be empty.

    Symmetric: the percentile t of |x|, as (−t, t). Otherwise the values that are left out are shared
    equally by the two tails, so for 99.99 the range goes from the 0.005th to the 99.995th percentile; a tensor that
    is nowhere negative (or nowhere positive) keeps its end nearest 0 and loses only its other tail.

    100 gives the extremes exactly. Inside a bucket the percentile is interpolated linearly.
    """
    part = Fraction(repr(percent)) / 100  # as written: 99.99 has no exact float
    if part == 1:  # not through the buckets: the zero bucket does not know its denormals
        return stats.minimum, stats.maximum
    if fmt.symmetric:
        limit = magnitude_buckets(stats).quantile(part)
        return -limit, limit
    buckets = value_buckets(stats)
    if stats.minimum >= 0:
        return stats.minimum, buckets.quantile(part)
    if stats.maximum <= 0:
        return buckets.quantile(1 - part), stats.maximum
    tail = (1 - part) / 2
    return buckets.quantile(tail), buckets.quantile(1 - tail)
