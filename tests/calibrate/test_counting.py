"""The kernel library counts what NumPy counts, value for value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import onnxq
from onnxq.calibrate import counting, native
from onnxq.calibrate.counting import Counter, NumpyCounter
from onnxq.calibrate.native import NativeCounter
from onnxq.calibrate.statistics import TensorStatistics

needs_library = pytest.mark.skipif(native.count_function() is None, reason="onnxq was built without the kernel library")

# Bits rather than values: every float32 there is, with those that a uniform choice would never hit.
SPECIAL = [0, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0x40C00000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000]
BITS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(SPECIAL + [bits | 1 << 31 for bits in SPECIAL]))
ARRAYS = hnp.arrays(np.uint32, st.integers(1, 200), elements=BITS).map(lambda bits: bits.view(np.float32))


def finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.float32(1.5))


def native_counter() -> NativeCounter:
    count = native.count_function()
    assert count is not None
    return NativeCounter(count)


def add_all(counter: Counter, arrays: list[np.ndarray]) -> list[tuple[float, float] | None]:
    """What add returns; a zero of either sign as 0."""
    results = (counter.add(x) for x in arrays)
    return [None if r is None else (r[0] + 0.0, r[1] + 0.0) for r in results]


def drained(counter: Counter) -> dict[int, dict[int, int]]:
    """{page: {bucket: count}} with the zero bucket's parts added up, as its users do."""
    pages: dict[int, dict[int, int]] = {}
    for page, counts in counter.drain():
        assert counts.dtype == np.int64 and counts.shape == (1024,) and counts.any()
        if page % 256 == 0:
            pages.setdefault(0, {0: 0})[0] += int(counts.sum())
        else:
            pages[page] = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    return pages


@needs_library
@given(st.lists(ARRAYS, min_size=1, max_size=8))
@example([np.array([0.0, -0.0, 1e-45, -1e-45], np.float32)])
@example([np.zeros(7, np.float32), np.array([0, 0, 0, math.nan], np.float32), np.zeros(2, np.float32)])
@example([np.array([1, 0, 2, 0, 0, 3, 0, 0, math.inf], np.float32), -np.zeros(5, np.float32)])
def test_equals_numpy(arrays: list[np.ndarray]) -> None:
    ours, definition = native_counter(), NumpyCounter()
    assert add_all(ours, arrays) == add_all(definition, arrays)
    assert drained(ours) == drained(definition)


@needs_library
@given(st.lists(ARRAYS.map(finite), min_size=1, max_size=4), st.integers(1, 3))
def test_equals_numpy_after_it_was_emptied(arrays: list[np.ndarray], rounds: int) -> None:
    ours, definition = native_counter(), NumpyCounter()
    for _ in range(rounds):
        assert add_all(ours, arrays) == add_all(definition, arrays)
        assert drained(ours) == drained(definition)
    assert drained(ours) == {}


@needs_library
@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000, 65_535, 65_536, 1_000_003])
@pytest.mark.parametrize("kind", ["normal", "relu6", "constant", "wide", "zeros"])
def test_equals_numpy_on_activations(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    normal = rng.standard_normal(size).astype(np.float32)
    x = {
        "normal": normal,
        "relu6": np.clip(normal * 5, 0, 6),
        "constant": np.full(size, -6, np.float32),
        "wide": rng.integers(0, 0x7F800000, size, np.uint32).view(np.float32) * np.sign(normal),
        "zeros": normal * 0,
    }[kind].astype(np.float32)
    ours, definition = native_counter(), NumpyCounter()
    assert add_all(ours, [x, x[::-1].copy()]) == add_all(definition, [x, x])
    assert drained(ours) == drained(definition)


@needs_library
@given(ARRAYS.map(finite), st.integers(1, 3))
def test_values_need_not_be_aligned(x: np.ndarray, shift: int) -> None:
    buffer = np.zeros(x.nbytes + shift, np.uint8)
    buffer[shift:] = x.view(np.uint8)
    unaligned = np.frombuffer(buffer.data, np.float32, offset=shift)
    assert not unaligned.flags.aligned
    ours, definition = native_counter(), NumpyCounter()
    assert add_all(ours, [unaligned]) == add_all(definition, [x])
    assert drained(ours) == drained(definition)


@needs_library
@pytest.mark.parametrize("at", [0, 1, 2, 3, 50_000, 99_999])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -math.nan])
def test_a_refused_array_is_taken_back(at: int, value: float) -> None:
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    x[::3] = 0
    counter = native_counter()
    counter.add(x[:1000])
    before = x.copy()
    x[at] = value
    assert counter.add(x) is None
    assert counter.add(before[:10]) == (float(before[:10].min()), float(before[:10].max()))
    expected = NumpyCounter()
    add_all(expected, [before[:1000], before[:10]])
    assert drained(counter) == drained(expected)


@needs_library
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 2))
def test_strided_inputs_count_alike(start: int, step: int, axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((6, 12, 10)).astype(np.float32)
    view = np.moveaxis(x, axis, 0)[start::step][..., ::-1]
    strided, packed = TensorStatistics(), TensorStatistics()
    strided.update(view)
    packed.update(view.ravel())
    assert strided == packed and strided.count == view.size


@pytest.fixture
def found_anew() -> Iterator[None]:
    """The library is looked for again, before the test and after it."""
    native.count_function.cache_clear()
    yield
    native.count_function.cache_clear()


def test_numpy_counts_without_a_library(found_anew: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONNXQ_LIBRARY", raising=False)
    monkeypatch.setattr(onnxq, "__path__", [str(tmp_path)])
    assert isinstance(counting.make_counter(), NumpyCounter)


def test_a_library_is_found_once(found_anew: None) -> None:
    assert native.count_function() is native.count_function()
