"""Samples between two probes: those of which the core was whole, and those that a neighbour slowed down.

On a virtual machine another guest may run on the sibling hyperthread, in bursts of 40 µs to seconds; vector and tile
instructions then take about twice as long. A probe is a fixed number of multiply-adds on registers: it takes its
fastest time on a core of its own only. A sample is fast if the probes before and after it were.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Times the fastest probe. A neighbour costs 1.7 times and more; the clock alone, which falls under load, up to 1.3.
NEAR = 1.4


@dataclass(frozen=True)
class Sample:
    """Seconds of one run, and those of the probes before and after it."""

    seconds: float
    before: float
    after: float


@dataclass(frozen=True)
class Phases:
    """Minimum and median of the fast samples in ms, and the median of the slow ones; None where there are none."""

    fast: int
    min_ms: float | None
    median_ms: float | None
    slow: int
    slow_median_ms: float | None


def fastest_probe(samples: Iterable[Sample]) -> float:
    """Seconds of the fastest probe."""
    return min(probe for sample in samples for probe in (sample.before, sample.after))


def phases(samples: Sequence[Sample], fastest: float) -> Phases:
    """The samples apart by their probes. fastest: seconds of a probe on a whole core."""
    fast = [s.seconds * 1e3 for s in samples if max(s.before, s.after) <= NEAR * fastest]
    slow = [s.seconds * 1e3 for s in samples if max(s.before, s.after) > NEAR * fastest]
    return Phases(len(fast), min(fast, default=None), _median(fast), len(slow), _median(slow))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
