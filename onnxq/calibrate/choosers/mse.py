"""Ranges that minimize the expected squared error of quantize → dequantize."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.buckets import Buckets, value_buckets
from onnxq.calibrate.ranges import RangeChooser
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range

# Thresholds tried per octave; points and rounds of the refinement between the two neighbours of the best.
PER_OCTAVE = 8
REFINE_POINTS = 9
REFINE_ROUNDS = 2
# Rounds of optimizing each end of a two-sided range with the other fixed, then sliding both by up to SLIDE codes.
ALTERNATIONS = 3
SLIDE = 4
# The last round is the first that reduces the error by less than this share.
GAIN_MIN = 1e-3

Floats = NDArray[np.float64]


class ErrorModel:
    """The expected squared error of any per-tensor quantization, from bucket centres and counts.

    Prefix sums of the counts, first and second moments make one evaluation cost O(codes · log buckets).
    """

    def __init__(self, buckets: Buckets) -> None:
        self._x = buckets.centre
        n = buckets.count.astype(np.float64)
        self._sums = np.zeros((3, n.size + 1))
        np.cumsum([n, n * self._x, n * self._x**2], axis=1, out=self._sums[:, 1:])

    def mean_squared_error(self, qparams: QParams) -> Floats:
        """E[(dequantize(quantize(x)) − x)²], with the actual clipping and rounding of qparams.

        qparams: one, or candidates: scale and zero_point () or (n,). Returns float64 of that shape.
        """
        scale = qparams.scale.astype(np.float64)[..., None]
        code = np.arange(qparams.format.qmin, qparams.format.qmax + 1)
        value = (code - qparams.zero_point[..., None]) * scale
        cells = np.zeros((*value.shape[:-1], code.size + 1), np.intp)
        cells[..., 1:-1] = np.searchsorted(self._x, value[..., :-1] + scale / 2)
        cells[..., -1] = self._x.size
        n, first, second = np.diff(self._sums[:, cells], axis=-1)
        return np.maximum((second - 2 * value * first + value**2 * n).sum(axis=-1), 0.0) / self._sums[0, -1]


@dataclass(frozen=True)
class MeanSquaredError(RangeChooser):
    """The range that minimizes the expected squared error of quantize → dequantize.

    Symmetric formats and one-sided tensors: a search over one threshold. Affine formats on signed tensors: both
    ends shrunk together, then each in turn, then both shifted, repeatedly. Thresholds decrease from the extremes in
    steps of 2^(1/8), and the best is refined between its neighbours. Among equal errors the widest range wins.
    """

    name: ClassVar[str] = "mse"

    def choose(self, stats: TensorStatistics, fmt: QuantFormat) -> tuple[float, float]:
        model = ErrorModel(value_buckets(stats))
        low, high = min(stats.minimum, 0.0), max(stats.maximum, 0.0)
        # A single extreme value costs at most the error of all others: about √count above them.
        octaves = math.ceil(math.log2(stats.count + 1) / 2) + 2

        def error(lo: Floats | float, hi: Floats | float) -> Floats:
            lows, highs = np.broadcast_arrays(lo, hi)
            return model.mean_squared_error(qparams_from_range(lows, highs, fmt))

        if fmt.symmetric:
            top = max(-low, high) if fmt.signed else high
            shrink, _ = _search(lambda s: error(-s * top, s * top), octaves)
            return -shrink * top, shrink * top
        shrink, best = _search(lambda s: error(s * low, s * high), octaves)
        lo, hi = shrink * low, shrink * high
        if low == 0.0 or high == 0.0:
            return lo, hi
        for _ in range(ALTERNATIONS):
            before = best
            shrink, best = _search(lambda s, lo=lo: error(lo, s * high), octaves)  # type: ignore[misc]
            hi = shrink * high
            shrink, best = _search(lambda s, hi=hi: error(s * low, hi), octaves)  # type: ignore[misc]
            lo = shrink * low
            # Coarse codes, power-of-two scales: a better zero point may lie beyond a ridge that one end cannot cross.
            step = float(qparams_from_range(lo, hi, fmt).scale) * np.arange(-SLIDE, SLIDE + 1)
            slid_lo, slid_hi = np.clip(lo + step, low, 0.0), np.clip(hi + step, 0.0, high)
            errors = error(slid_lo, slid_hi)
            i = int(np.argmin(errors))
            if errors[i] < best:
                best, lo, hi = float(errors[i]), float(slid_lo[i]), float(slid_hi[i])
            if best >= before * (1 - GAIN_MIN):
                break
        return lo, hi


def _search(error: Callable[[Floats], Floats], octaves: int) -> tuple[float, float]:
    """The factor in [2^−octaves, 1] with the least error, and that error; error maps (n,) factors to (n,) errors."""
    tried = np.exp2(-np.arange(octaves * PER_OCTAVE + 1) / PER_OCTAVE)
    errors = error(tried)
    for _ in range(REFINE_ROUNDS):
        i = int(np.argmin(errors))  # among equals the first, which is the widest: factors descend
        between = np.linspace(tried[max(i - 1, 0)], tried[min(i + 1, tried.size - 1)], REFINE_POINTS)
        tried, errors = np.concatenate([tried, between]), np.concatenate([errors, error(between)])
        order = np.argsort(-tried, kind="stable")
        tried, errors = tried[order], errors[order]
    i = int(np.argmin(errors))
    return float(tried[i]), float(errors[i])
