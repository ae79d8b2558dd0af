"""Count float32 values into buckets: in NumPy, which defines the result, or in the kernel library, which is faster."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate import native
from onnxq.calibrate.buckets import MANTISSA_SHIFT, NEGATIVE_PAGE, PAGE_SIZE, PAGES

# Values per histogram step: few enough for the keys to stay in the cache.
CHUNK = 1 << 15
# Smaller arrays are collected up to this size before counting: emptying the scratch costs about 0.1 ms.
PENDING = 1 << 16


class Counter(Protocol):
    """Counts of one tensor, not yet added to its pages. At most 2^31 values between two calls of drain."""

    def add(self, values: NDArray[np.float32]) -> tuple[float, float] | None:
        """Count values, (n,), n ≥ 1, and return their minimum and maximum; None, with nothing counted, if some are not
        finite. A minimum or maximum of 0 may be returned as −0."""

    def drain(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the non-empty pages since the last call, as (page, counts (1024,)), and clear them."""


def make_counter() -> Counter:
    """A counter in the kernel library if there is one, else in NumPy: the same counts."""
    count = native.count_function()
    return NumpyCounter() if count is None else native.NativeCounter(count)


class NumpyCounter:
    """The reference implementation. It holds the GIL."""

    def __init__(self) -> None:
        self._pages: dict[int, NDArray[np.int64]] = {}
        self._pending: NDArray[np.float32] | None = None
        self._waiting = 0  # values in _pending that are not yet in the pages

    def add(self, values: NDArray[np.float32]) -> tuple[float, float] | None:
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        if values.size >= PENDING:
            self._count(values)
            return low, high
        if self._waiting + values.size > PENDING:
            self._flush()
        if self._pending is None:
            self._pending = np.empty(PENDING, np.float32)
        self._pending[self._waiting : self._waiting + values.size] = values
        self._waiting += values.size
        return low, high

    def drain(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        self._flush()
        pages, self._pages = self._pages, {}
        yield from pages.items()

    def _flush(self) -> None:
        if self._pending is not None and self._waiting:
            self._count(self._pending[: self._waiting])
            self._waiting = 0

    def _count(self, values: NDArray[np.float32]) -> None:
        try:
            _scratch.add(values.view(np.uint32))
            for page, counts in _scratch.take(float(values.min()), float(values.max())):
                if page in self._pages:
                    self._pages[page] += counts
                else:
                    self._pages[page] = counts.copy()  # a view would keep all pages of the array alive
        except BaseException:
            _scratch.clear()  # an interrupt here must not leak counts into the next tensor
            raise


class _Scratch(threading.local):
    """Per-thread buffers: 2 MiB of counts, all zero between calls, and one chunk of keys."""

    def __init__(self) -> None:
        self._counts = np.zeros(PAGES * PAGE_SIZE, np.int32)
        self._keys = np.empty(CHUNK, np.uint32)
        self._index = np.empty(CHUNK, np.intp)

    def add(self, bits: NDArray[np.uint32]) -> None:
        """Count float32 bits, fewer than 2^31 of them."""
        for start in range(0, bits.size, CHUNK):
            part = bits[start : start + CHUNK]
            keys, index = self._keys[: part.size], self._index[: part.size]
            # Shift in 32 bits, then widen: numpy's shift with a wider output is slower than both.
            np.right_shift(part, MANTISSA_SHIFT, out=keys)
            index[:] = keys
            np.add.at(self._counts, index, np.int32(1))

    def take(self, low: float, high: float) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the non-empty pages, as (page, counts), and clear them; low, high: bounds of the counted values."""
        all_pages = self._counts.reshape(PAGES, PAGE_SIZE)
        # The bounds exclude exponents that cannot occur: half of the scratch or more.
        for first, magnitude in ((0, high), (NEGATIVE_PAGE, -low)):
            pages = all_pages[first : first + _exponent(max(magnitude, 0.0)) + 1]
            occupied = np.flatnonzero(pages.max(axis=1))
            counts = pages[occupied].astype(np.int64)
            pages[occupied] = 0
            yield from zip((occupied + first).tolist(), counts, strict=True)

    def clear(self) -> None:
        """Clear all counts."""
        self._counts.fill(0)


_scratch = _Scratch()


def _exponent(value: float) -> int:
    """Biased exponent of a float32 of either sign; 0 for zero (also −0) and denormals."""
    return (int(np.float32(value).view(np.uint32)) >> 23) & 0xFF
