"""Squared error of quantized weights at several widths, in one pass over the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import fake_quantize

# Elements per block: a block stays in the second-level cache through all widths; longer ones are slower.
BLOCK = 1 << 15
# BLAS starts no threads for so few elements: they would wait for cores on which onnxruntime's threads still spin.
BLAS = 1 << 13
# Scales are float32: ratios that are equal in theory differ by this much.
RATIO_TOLERANCE = 1e-6


def weight_errors(w: NDArray, formats: Sequence[QuantFormat], axis: int | None = None) -> NDArray[np.float64]:
    """Mean of (w − dequantize(quantize(w)))² per format, ranges from minimum and maximum; (len(formats),).

    w: floating point, any shape. axis: channel axis of the scales, None for per-tensor. Same as with quantize and
    dequantize, but computed in steps of the grid with a reciprocal scale: relative differences of about 1e-5.
    """
    if w.size == 0:
        return np.zeros(len(formats))
    if axis is None:
        rows = np.ascontiguousarray(w, np.float32).reshape(1, -1)
    else:
        rows = np.ascontiguousarray(np.moveaxis(w, axis, 0), np.float32).reshape(w.shape[axis], -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    grids = [_Grid(qparams_from_range(low, high, fmt, 0), low, high) for fmt in formats]
    ratios = _ratios(grids)
    columns = min(rows.shape[1], BLOCK)
    count = max(BLOCK // columns, 1)
    buffers = np.empty((3, count, columns), np.float32)
    total = np.zeros(len(formats))
    for r in range(0, rows.shape[0], count):
        for c in range(0, rows.shape[1], columns):
            block = rows[r : r + count, c : c + columns]
            mine = slice(r, r + block.shape[0])
            common, t, q = (b[: block.shape[0], : block.shape[1]] for b in buffers)
            if ratios is not None:
                np.multiply(block, grids[0].reciprocal[mine], out=common)
            for k, grid in enumerate(grids):
                if ratios is None:
                    np.multiply(block, grid.reciprocal[mine], out=t)
                else:
                    np.multiply(common, ratios[k], out=t)
                total[k] += grid.squared_error(t, mine, q)
    return total / w.size


def relative_errors(w: NDArray, formats: Sequence[QuantFormat], axis: int | None = None) -> NDArray[np.float64]:
    """Mean of (w − ŵ)/w and of |w − ŵ|/|w| per format, ŵ = dequantize(quantize(w)), over w ≠ 0; (len(formats), 2).

    The first is RQE of Kloberdanz & Le 2023, table 4: signed, so that errors up and down cancel, and 1 for every
    weight that becomes 0. w, axis: as in weight_errors.
    """
    values = np.asarray(w, np.float32)
    known = values != 0
    if not known.any():
        return np.zeros((len(formats), 2))
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    low, high = values.min(axis=others), values.max(axis=others)
    found = []
    for fmt in formats:
        error = values - fake_quantize(values, qparams_from_range(low, high, fmt, axis))
        ratio = error[known].astype(np.float64) / values[known]
        found.append((ratio.mean(), np.abs(ratio).mean()))
    return np.array(found)


def _ratios(grids: Sequence[_Grid]) -> list[np.float32] | None:
    """Reciprocal scales relative to the first grid's, if equal in all rows: multiplying by a scalar is faster."""
    found = []
    for grid in grids:
        ratio = (grid.reciprocal / grids[0].reciprocal)[grids[0].used]
        if ratio.size and np.ptp(ratio) > RATIO_TOLERANCE * ratio[0]:
            return None
        found.append(np.float32(ratio[0] if ratio.size else 1.0))
    return found


class _Grid:
    """One format's scales, (rows, 1). used: rows that are not all zero."""

    def __init__(self, qparams: QParams, low: NDArray, high: NDArray) -> None:
        scale = qparams.scale.astype(np.float64)
        self.used = (low != 0) | (high != 0)
        self.reciprocal = (1.0 / scale).astype(np.float32)[:, None]
        self.weight = scale**2
        self.qmin = (qparams.format.qmin - qparams.zero_point).astype(np.float32)[:, None]
        self.qmax = (qparams.format.qmax - qparams.zero_point).astype(np.float32)[:, None]
        # Rounding is monotone: if the ends of a row are within the grid, so is the whole row, which saves a pass.
        ends = np.rint(np.stack([low, high]) * self.reciprocal[:, 0])
        self.saturates = bool((ends[0] < self.qmin[:, 0]).any() or (ends[1] > self.qmax[:, 0]).any())

    def squared_error(self, t: NDArray, rows: slice, q: NDArray) -> float:
        """Sum over a block of these rows. t: its weights in steps, overwritten; q: a buffer of its shape."""
        np.rint(t, out=q)
        if self.saturates:
            np.clip(q, self.qmin[rows], self.qmax[rows], out=q)
        np.subtract(t, q, out=t)
        if t.shape[0] == 1:
            parts = (t[0, i : i + BLAS] for i in range(0, t.shape[1], BLAS))
            return sum(float(np.dot(p, p)) for p in parts) * float(self.weight[rows.start])
        return float(np.einsum("ij,ij->i", t, t).astype(np.float64) @ self.weight[rows])
