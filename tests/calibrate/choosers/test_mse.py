"""The mse chooser against exhaustive search and against the quantizer itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.calibrate.buckets import value_buckets
from onnxq.calibrate.choosers.mse import ErrorModel
from onnxq.calibrate.ranges import choose_range
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize

FORMATS = [
    QuantFormat(8),
    QuantFormat(8, signed=False, symmetric=False),
    QuantFormat(8, power_of_two=True),
    QuantFormat(4),
    QuantFormat(4, signed=False, symmetric=False),
    QuantFormat(4, signed=False, symmetric=False, power_of_two=True),
    QuantFormat(3, narrow_range=True),
]


def tensor(kind: str, size: int = 60_000) -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(size)
    match kind:
        case "relu":
            x = np.maximum(x, 0)
        case "relu6":
            x = np.clip(4 * x, 0, 6)
        case "outliers":
            x[:5] = [30, -8, 25, 31, 44]
        case "one-sided outlier":
            x[0] = -1000
        case "hard swish":
            x = 4 * x * np.clip(4 * x + 3, 0, 6) / 6
        case "laplace":
            x = rng.laplace(size=size)
    return x.astype(np.float32)


KINDS = ["normal", "relu", "relu6", "outliers", "one-sided outlier", "hard swish", "laplace"]


def of(x: np.ndarray) -> TensorStatistics:
    stats = TensorStatistics()
    stats.update(x)
    return stats


def true_error(x: np.ndarray, low: float, high: float, fmt: QuantFormat) -> float:
    error = fake_quantize(x, qparams_from_range(low, high, fmt)).astype(np.float64) - x
    return float((error**2).mean())


BUCKETS = {kind: value_buckets(of(tensor(kind, 2000))) for kind in KINDS}


@given(st.sampled_from(KINDS), st.sampled_from(FORMATS), st.floats(-3, 0), st.floats(0.01, 9))
def test_the_error_model_is_the_quantizer_on_the_bucket_centres(
    kind: str, fmt: QuantFormat, low: float, high: float
) -> None:
    buckets = BUCKETS[kind]
    qparams = qparams_from_range(low, high, fmt)
    error = fake_quantize(buckets.centre.astype(np.float32), qparams).astype(np.float64) - buckets.centre
    direct = float((error**2 * buckets.count).sum() / buckets.count.sum())
    assert ErrorModel(buckets).mean_squared_error(qparams) == pytest.approx(direct, rel=1e-4)  # x is float32 there


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_model_predicts_the_error_on_the_data(kind: str, fmt: QuantFormat) -> None:
    x = tensor(kind)
    low, high = choose_range(of(x), "mse", fmt)
    predicted = ErrorModel(value_buckets(of(x))).mean_squared_error(qparams_from_range(low, high, fmt))
    assert predicted == pytest.approx(true_error(x, low, high, fmt), rel=0.02)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_no_range_of_a_dense_grid_is_much_better(kind: str, fmt: QuantFormat) -> None:
    x = tensor(kind, 4000)
    stats = of(x)
    low, high = choose_range(stats, "mse", fmt)
    chosen = true_error(x, low, high, fmt)
    steps = np.concatenate([np.geomspace(1e-3, 0.5, 25), np.linspace(0.5, 1, 25)])
    if fmt.symmetric or stats.minimum >= 0:
        ranges = [(s * stats.minimum, s * stats.maximum) for s in np.linspace(0.002, 1, 500)]
        if fmt.symmetric:
            top = max(-stats.minimum, stats.maximum)
            ranges = [(-s * top, s * top) for s in np.linspace(0.002, 1, 500)]
    else:
        ranges = [(a * stats.minimum, b * stats.maximum) for a in steps for b in steps]
    best = min(true_error(x, lo, hi, fmt) for lo, hi in ranges)
    # The grid sees every value, the search only buckets: at 8 bits they are up to 1/8 of a step wide.
    assert chosen <= best * 1.03


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_no_other_method_does_better(kind: str, fmt: QuantFormat) -> None:
    x = tensor(kind)
    stats = of(x)
    errors = {
        method: true_error(x, *choose_range(stats, method, fmt), fmt)
        for method in ("mse", "max", "percentile:99.9", "percentile:99.99", "entropy")
    }
    assert errors["mse"] <= min(errors.values()) * 1.01, errors


def test_values_on_the_grid_cost_nothing() -> None:
    x = np.repeat(np.arange(256), 5).astype(np.float32)
    low, high = choose_range(of(x), "mse", QuantFormat(8, signed=False, symmetric=False))
    assert (low, high) == pytest.approx((0, 255), rel=0.01)
    constant = np.full(100, 6.0, np.float32)
    assert choose_range(of(constant), "mse", QuantFormat(8)) == (6.0, 6.0)
