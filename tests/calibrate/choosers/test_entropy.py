"""The entropy chooser against TensorRT's pseudo-code, spelled out slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.calibrate.choosers.entropy import BINS, divergences, levels, linear_histogram
from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat

INT8 = QuantFormat(8)
UINT8_AFFINE = QuantFormat(8, signed=False, symmetric=False)


def of(x: np.ndarray) -> TensorStatistics:
    stats = TensorStatistics()
    stats.update(x.astype(np.float32))
    return stats


def slow_divergence(bins: list[int], kept: int, n_levels: int) -> float:
    """The loop body of the 2017 slides, in lists."""
    p = [float(b) for b in bins[:kept]]
    p[-1] += sum(bins[kept:])
    members: dict[int, list[int]] = {}
    for j in range(kept):
        members.setdefault(j * n_levels // kept, []).append(j)
    q = [0.0] * kept
    for group in members.values():
        filled = [j for j in group if bins[j] > 0]
        for j in filled:
            q[j] = sum(bins[i] for i in group) / len(filled)
    if sum(q) == 0:
        return math.inf
    p = [v / sum(p) for v in p]
    q_sum = sum(q)
    divergence = 0.0
    for pj, qj in zip(p, q, strict=True):
        if pj > 0:
            if qj == 0:
                return math.inf
            divergence += pj * math.log(pj / (qj / q_sum))
    return divergence


@given(st.lists(st.sampled_from([0, 0, 1, 2, 7, 1000]), min_size=4, max_size=60), st.integers(2, 16))
def test_divergences_equal_the_slow_ones(bins: list[int], n_levels: int) -> None:
    if sum(bins) == 0:
        bins[-1] = 1
    n_levels = min(n_levels, len(bins))
    fast = divergences(np.array(bins, np.int64), n_levels)
    assert np.isinf(fast[: n_levels - 1]).all(), "fewer bins than levels are no candidates"
    for kept in range(n_levels, len(bins) + 1):
        slow = slow_divergence(bins, kept, n_levels)
        assert fast[kept - 1] == pytest.approx(slow, abs=1e-12), kept


def with_outliers() -> np.ndarray:
    """A million values of a bell curve and fifty far out: what a range should not be stretched for."""
    rng = np.random.default_rng(1)
    return np.concatenate([rng.standard_normal(1_000_000), rng.uniform(20, 40, 50)]).astype(np.float32)


def brute_force(histogram: np.ndarray, n_levels: int) -> np.ndarray:
    """Divergence of every candidate on a full histogram: the slow loop with arrays in place of lists."""
    result = np.full(BINS + 1, np.inf)
    for kept in range(n_levels, BINS + 1):
        bins = histogram[:kept].astype(np.float64)
        p = bins.copy()
        p[-1] += histogram[kept:].sum()
        group = np.arange(kept) * n_levels // kept
        mean = np.bincount(group, bins) / np.maximum(np.bincount(group, bins > 0), 1)
        q = np.where(bins > 0, mean[group], 0)
        on = p > 0
        if q.sum() > 0 and (q[on] > 0).all():
            result[kept] = (p[on] / p.sum() * np.log(p[on] / p.sum() / (q[on] / q.sum()))).sum()
    return result


@pytest.mark.parametrize("fmt", [INT8, UINT8_AFFINE, QuantFormat(4)], ids=str)
@pytest.mark.parametrize("shape", ["outliers", "relu", "laplace"])
def test_the_threshold_minimises_the_divergence(shape: str, fmt: QuantFormat) -> None:
    rng = np.random.default_rng(2)
    x = {
        "outliers": with_outliers(),
        "relu": np.maximum(rng.standard_normal(300_000), 0),
        "laplace": rng.laplace(size=300_000),
    }[shape]
    stats = of(x)
    edge, histogram = linear_histogram(stats)
    slow = brute_force(histogram, levels(stats, fmt))
    low, high = choose_range(stats, "entropy", fmt)
    kept = max(-low, high) / edge * BINS
    assert kept == pytest.approx(round(kept), abs=1e-6)
    assert slow[round(kept)] <= slow.min() + 1e-9
    assert np.isinf(slow[round(kept) + 1 :]).all() or slow[round(kept) + 1 :].min() > slow.min() - 1e-9


def test_outliers_are_clipped_where_max_keeps_them() -> None:
    stats = of(with_outliers())
    _, high = choose_range(stats, "entropy", INT8)
    assert high < 10
    assert choose_range(stats, "max", INT8)[1] > 20
    edge, histogram = linear_histogram(stats)
    slow = brute_force(histogram, 128)
    assert slow[round(high / edge * BINS)] < 0.2 * slow[BINS], "far less divergence than without clipping"


def test_zeros_do_not_move_the_threshold() -> None:
    x = np.abs(np.random.default_rng(3).standard_normal(100_000))
    spiked = of(np.append(x, np.zeros(900_000)))
    assert choose_range(of(x), "entropy", INT8)[1] == choose_range(spiked, "entropy", INT8)[1]


@pytest.mark.parametrize(
    ("low", "high", "fmt", "expected"),
    [
        (-4.0, 4.0, INT8, 128),
        (0.0, 4.0, INT8, 128),
        (0.0, 4.0, UINT8_AFFINE, 256),
        (-4.0, 0.0, UINT8_AFFINE, 256),
        (2.0, 4.0, UINT8_AFFINE, 256),
        (-4.0, 4.0, UINT8_AFFINE, 128),
        (-1.0, 3.0, UINT8_AFFINE, 192),
        (0.0, 4.0, QuantFormat(4, signed=False), 16),
        (-4.0, 4.0, QuantFormat(4), 8),
    ],
)
def test_levels(low: float, high: float, fmt: QuantFormat, expected: int) -> None:
    assert levels(of(np.array([low, high])), fmt) == expected


@given(st.integers(0, 10_000), st.sampled_from([3, 50, 5000, 200_000]))
def test_the_linear_histogram_holds_whole_values_in_their_places(seed: int, size: int) -> None:
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    edge, histogram = linear_histogram(of(x))
    magnitude = np.sort(np.abs(x).astype(np.float64))
    assert edge == magnitude[-1] and histogram.shape == (BINS,) and histogram.dtype == np.int64
    assert histogram.min() >= 0 and histogram.sum() == size
    # Up to each edge: no fewer values than lie a bucket below it, no more than a bucket above.
    edges = np.linspace(0, edge, BINS + 1)[1:]
    below = np.cumsum(histogram)
    assert (below >= np.searchsorted(magnitude, edges * (1 - 2**-10))).all()
    assert (below <= np.searchsorted(magnitude, edges * (1 + 2**-10), side="right")).all()
