"""SQNR, cosine and MSE."""

import math

import numpy as np
import pytest

from onnxq.numeric.metrics import BLOCK, ErrorSums, sqnr_db


def test_known_values() -> None:
    reference, test = np.array([3.0, 4.0]), np.array([3.0, 4.5])
    sums = ErrorSums()
    sums.add(reference, test)
    assert sums.sqnr_db == pytest.approx(20.0)  # 25 / 0.25
    assert sums.mse == 0.125 and sums.err_max == 0.5 and sums.count == 2
    assert sums.cosine == pytest.approx((9 + 18) / (5 * math.sqrt(9 + 20.25)))
    assert sqnr_db(reference, test) == sums.sqnr_db


def test_batches_add_up() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    whole, parts = ErrorSums(), ErrorSums()
    whole.add(a, b)
    for x, y in zip(a, b, strict=True):
        parts.add(x, y)
    assert parts.sqnr_db == pytest.approx(whole.sqnr_db) and parts.cosine == pytest.approx(whole.cosine)


def test_limits() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert sqnr_db(one, one) == math.inf and sqnr_db(zero, one) == -math.inf and sqnr_db(zero, zero) == math.inf
    sums = ErrorSums()
    assert math.isnan(sums.mse)
    sums.add(np.zeros((0, 2)), np.zeros((0, 2)))
    assert math.isnan(sums.mse) and sums.cosine == 1.0
    sums.add(zero, one)
    assert sums.cosine == 0.0


def test_long_arrays_are_summed_in_blocks() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, BLOCK + 7)).astype(np.float32), rng.normal(size=(3, BLOCK + 7)).astype(np.float32)
    sums = ErrorSums()
    sums.add(a, b)
    err = a.astype(np.float64) - b
    assert sums.count == a.size and sums.err_max == np.abs(err).max()
    assert sums.mse == pytest.approx((err**2).mean()) and sums.dot == pytest.approx((a.astype(np.float64) * b).sum())


def test_nan_and_shapes() -> None:
    sums = ErrorSums()
    sums.add(np.array([1.0, 2.0]), np.array([np.nan, 2.0]))
    sums.add(np.ones(2), np.ones(2))
    assert math.isnan(sums.sqnr_db) and math.isnan(sums.err_max)
    with pytest.raises(ValueError, match="same shape"):
        sums.add(np.ones(2), np.ones(3))
