"""The buckets of calibration statistics as intervals of the real line, and functions of the buckets alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A bucket is (sign, exponent, 10 mantissa bits) of a float32: its bits shifted right by 13.
MANTISSA_SHIFT = 13
# A page contains the buckets of one sign and exponent; its number is sign · 256 + biased exponent.
PAGE_SIZE = 1024
NEGATIVE_PAGE = 256
PAGES = 512


class Counts(Protocol):
    """Counts of a tensor's values; implemented by onnxq.calibrate.statistics.TensorStatistics."""

    minimum: float
    maximum: float

    @property
    def zeros(self) -> int:
        """Count of the zero bucket."""

    @property
    def pages(self) -> Mapping[int, NDArray[np.int64]]:
        """The other buckets: {sign · 256 + biased exponent: counts (1024,)}."""


@dataclass(frozen=True)
class Buckets:
    """Occupied buckets in ascending order: low ≤ values ≤ high, count of them. float64, float64, int64, all (n,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def centre(self) -> NDArray[np.float64]:
        """The representative value of each bucket, (n,) float64."""
        return self.low + (self.high - self.low) / 2

    def quantile(self, fraction: Fraction) -> float:
        """The value below which `fraction` (0 to 1) of the values are, linear inside a bucket.

        It is in the bucket of the ceil(fraction · n)-th smallest value (the inverted CDF). Not for empty buckets.
        """
        rank = fraction * int(self.count.sum())
        cumulative = np.cumsum(self.count)
        # In integers: a rank rounded to float64 could step into the next bucket.
        i = int(np.searchsorted(cumulative, max(-(-rank.numerator // rank.denominator), 1)))
        inside = rank - int(cumulative[i] - self.count[i])
        return float(self.low[i] + (self.high[i] - self.low[i]) * max(float(inside / int(self.count[i])), 0.0))


def value_buckets(stats: Counts) -> Buckets:
    """The buckets of x, clipped to [minimum, maximum]; the zero bucket is the point 0."""
    n_low, n_high, n_count = _edges(
        {page - NEGATIVE_PAGE: c for page, c in stats.pages.items() if page > NEGATIVE_PAGE}
    )
    low, high, count = _edges({page: c for page, c in stats.pages.items() if page < NEGATIVE_PAGE})
    zeros = [stats.zeros] if stats.zeros else []
    zero = np.zeros(len(zeros))
    return Buckets(
        np.clip(np.concatenate([-n_high[::-1], zero, low]), stats.minimum, stats.maximum),
        np.clip(np.concatenate([-n_low[::-1], zero, high]), stats.minimum, stats.maximum),
        np.concatenate([n_count[::-1], np.array(zeros, np.int64), count]),
    )


def magnitude_buckets(stats: Counts, with_zeros: bool = True) -> Buckets:
    """The buckets of |x|, both signs added, clipped to the extremes of |x| as far as they are known."""
    pages: dict[int, NDArray[np.int64]] = {}
    for page, counts in stats.pages.items():
        exponent = page % NEGATIVE_PAGE
        pages[exponent] = pages[exponent] + counts if exponent in pages else counts
    low, high, count = _edges(pages)
    zeros = [stats.zeros] if with_zeros and stats.zeros else []
    smallest = max(stats.minimum, -stats.maximum, 0.0)
    largest = max(-stats.minimum, stats.maximum, 0.0)
    return Buckets(
        np.clip(np.concatenate([np.zeros(len(zeros)), low]), smallest, largest),
        np.clip(np.concatenate([np.zeros(len(zeros)), high]), smallest, largest),
        np.concatenate([np.array(zeros, np.int64), count]),
    )


def _edges(
    pages: Mapping[int, NDArray[np.int64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Edges of |x| and counts of the occupied buckets of pages {exponent: counts}, ascending."""
    if not pages:
        return np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
    exponents = sorted(pages)
    counts = np.concatenate([pages[e] for e in exponents])
    first = np.array(exponents, np.uint32) * np.uint32(PAGE_SIZE)
    keys: NDArray[np.uint32] = np.add.outer(first, np.arange(PAGE_SIZE, dtype=np.uint32)).ravel()
    occupied = np.flatnonzero(counts)
    # The bucket above the largest float32 ends at infinity; the caller clips it to the maximum.
    return _starts(keys[occupied]), _starts(keys[occupied] + np.uint32(1)), counts[occupied]


def page_starts(exponent: int) -> NDArray[np.float64]:
    """Smallest |x| of each bucket of a page, (1024,) float64. exponent: biased."""
    return _starts(np.uint32(exponent * PAGE_SIZE) + np.arange(PAGE_SIZE, dtype=np.uint32))


def _starts(keys: NDArray[np.uint32]) -> NDArray[np.float64]:
    return (keys << np.uint32(MANTISSA_SHIFT)).view(np.float32).astype(np.float64)
