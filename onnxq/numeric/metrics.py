"""Distances between a tensor and its quantized counterpart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Elements summed at once: they stay in cache, and BLAS starts no threads for so few elements. Such threads would wait
# for cores on which onnxruntime's threads still spin (measured: 10 times slower).
BLOCK = 8192


class ErrorSums:
    """Running float64 sums for SQNR, cosine and MSE; add any number of batches."""

    def __init__(self) -> None:
        self.count = 0
        self.ref_sq = 0.0
        self.test_sq = 0.0
        self.dot = 0.0
        self.err_sq = 0.0
        self.err_max = 0.0

    def add(self, reference: NDArray, test: NDArray) -> None:
        """Add one pair of arrays; ValueError if their shapes differ. A NaN makes every metric NaN."""
        if reference.shape != test.shape:
            raise ValueError(f"{reference.shape} and {test.shape} are not the same shape")
        reference, test = np.ravel(reference), np.ravel(test)
        for start in range(0, reference.size, BLOCK):
            r = reference[start : start + BLOCK].astype(np.float64)
            t = test[start : start + BLOCK].astype(np.float64)
            err = r - t
            self.ref_sq += float(r @ r)
            self.test_sq += float(t @ t)
            self.dot += float(r @ t)
            self.err_sq += float(err @ err)
            self.err_max = float(np.maximum(self.err_max, np.abs(err).max()))
        self.count += reference.size

    @property
    def mse(self) -> float:
        """Mean squared error; nan with no elements."""
        return self.err_sq / self.count if self.count else math.nan

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization-noise ratio, 10·log10(Σ ref² / Σ err²), in dB; inf when equal."""
        if self.err_sq == 0.0:
            return math.inf
        return 10.0 * math.log10(self.ref_sq / self.err_sq) if self.ref_sq > 0.0 else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine similarity; 1 for two all-zero tensors."""
        norm = math.sqrt(self.ref_sq) * math.sqrt(self.test_sq)
        if norm == 0.0:
            return 1.0 if self.ref_sq == self.test_sq else 0.0
        return self.dot / norm


def sqnr_db(reference: NDArray, test: NDArray) -> float:
    """SQNR of `test` against `reference` in dB."""
    sums = ErrorSums()
    sums.add(reference, test)
    return sums.sqnr_db
