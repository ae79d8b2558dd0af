"""Tensors compared: distance, noise, constants."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray


def assert_close(old: NDArray, new: NDArray, tolerance: float) -> None:
    """Same shape and type, and a difference of at most tolerance x the largest magnitude."""
    assert (old.shape, old.dtype) == (new.shape, new.dtype)
    if old.size == 0:
        return
    difference = np.max(np.abs(old.astype(np.float64) - new.astype(np.float64)))
    limit = tolerance * np.max(np.abs(old.astype(np.float64)))
    assert difference <= limit, f"differs by {difference:.3g}, more than {limit:.3g}"


def constant(tensor: gs.Tensor) -> NDArray:
    """Values of a tensor that must be a constant."""
    assert isinstance(tensor, gs.Constant), f"{tensor.name} is computed"
    return np.asarray(tensor.values)


def sqnr(reference: NDArray, test: NDArray) -> float:
    """Signal to noise in dB."""
    noise = float(((reference.astype(np.float64) - test) ** 2).sum())
    return 10 * np.log10(float((reference.astype(np.float64) ** 2).sum()) / noise) if noise else np.inf
