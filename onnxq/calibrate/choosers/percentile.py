"""Ranges that exclude the most extreme values (NVIDIA 2020, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from onnxq.calibrate.buckets import magnitude_buckets, value_buckets
from onnxq.calibrate.ranges import RangeChooser
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.errors import ConfigError
from onnxq.numeric.formats import QuantFormat


@dataclass(frozen=True)
class Percentile(RangeChooser):
    """The range that covers P percent of the values.

    Symmetric formats: the percentile t of |x|, as (−t, t). Otherwise both tails lose the same share, so 99.99 gives
    the 0.005th to the 99.995th percentile; a tensor without negative (or without positive) values keeps its end
    nearest 0 and loses only the other tail. 100 gives the exact extremes. Inside a bucket the percentile is
    interpolated linearly.
    """

    name: ClassVar[str] = "percentile"
    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ConfigError("a percentile must be above 0 and at most 100")

    def choose(self, stats: TensorStatistics, fmt: QuantFormat) -> tuple[float, float]:
        part = Fraction(repr(self.percent)) / 100  # as written: 99.99 has no exact float
        if part == 1:  # not through the buckets: the zero bucket does not distinguish denormals
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
