"""Counting in the kernel library: about 1.2 ns per value on one core, without the GIL."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.buckets import NEGATIVE_PAGE, PAGE_SIZE, PAGES

CountFunction = Callable[[int, int, int, int, int], int]
NON_FINITE = 255  # the biased exponent of NaN and infinity
TAKE_BACK = 2**32 - 1  # −1, modulo 2^32


@cache
def count_function() -> CountFunction | None:
    """`onnxq_count` of kernels/cpu/calibrate/count.hpp, pointers as integers. None without a kernel library.

    Raises OnnxqError if there is a library that cannot be loaded.
    """
    from onnxq.execution import library

    if not library.has_library():
        return None
    function = getattr(library.load(), "onnxq_count", None)  # missing in an older build, which ONNXQ_LIBRARY may select
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
        function.restype = ctypes.c_size_t
    return function


class NativeCounter:
    """Counts of one tensor, directly in its own uint32 pages (see onnxq.calibrate.counting.Counter)."""

    def __init__(self, count: CountFunction) -> None:
        self._count = count
        self._extremes = np.empty(2, np.float32)
        # Addresses are looked up once: numpy takes 2 µs for each.
        self._extremes_at = self._extremes.ctypes.data
        self._clear()

    def add(self, values: NDArray[np.float32]) -> tuple[float, float] | None:
        self._extremes[0], self._extremes[1] = np.inf, -np.inf
        at, done = values.ctypes.data, 0
        while (done := done + self._run(at + 4 * done, values.size - done, 1)) < values.size:
            page = int(values[done : done + 1].view(np.uint32)[0]) >> 23
            if page % NEGATIVE_PAGE == NON_FINITE:
                self._run(at, done, TAKE_BACK)
                return None
            self._add_page(page)
        return float(self._extremes[0]), float(self._extremes[1])

    def drain(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        pages = self._pages
        self._clear()
        for page, (even, odd) in pages.items():
            # Modulo 2^32, since undoing may have moved counts from one to the other.
            counts = even if even is odd else even + odd
            if counts.any():
                yield page, counts.astype(np.int64)

    def _run(self, at: int, size: int, step: int) -> int:
        return self._count(at, size, self._table_at, step, self._extremes_at)

    def _clear(self) -> None:
        self._pages: dict[int, tuple[NDArray[np.uint32], NDArray[np.uint32]]] = {}
        self._table = np.zeros((2, PAGES), np.uintp)
        self._table_at = self._table.ctypes.data

    def _add_page(self, page: int) -> None:
        even = odd = np.zeros(PAGE_SIZE, np.uint32)
        if page % NEGATIVE_PAGE == 0:
            # Zeros come in runs: two alternating counts, since an increment waits for the previous store.
            odd = np.zeros_like(even)
        self._pages[page] = even, odd
        self._table[0, page] = even.ctypes.data
        self._table[1, page] = self._table[0, page] if odd is even else odd.ctypes.data
