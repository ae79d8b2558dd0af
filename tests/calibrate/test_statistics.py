"""Statistics depend on the values seen and on nothing else."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.calibrate import counting, native, statistics
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.errors import CalibrationError

TINY = float(np.finfo(np.float32).tiny)
FINITE32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 300), elements=FINITE32)

native_only = pytest.mark.skipif(native.count_function() is None, reason="onnxq was built without the kernel library")


@pytest.fixture(params=["numpy", pytest.param("native", marks=native_only)], autouse=True, scope="module")
def counter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of counting; the module's tests must hold for each."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(statistics, "make_counter", counting.NumpyCounter)
        yield


def of(*arrays: np.ndarray) -> TensorStatistics:
    stats = TensorStatistics()
    for array in arrays:
        stats.update(array)
    return stats


def bucket(value: float) -> tuple[int, int]:
    """(page, index in it) of a normal float32, from its definition: sign, exponent, first 10 mantissa bits."""
    mantissa, exponent = math.frexp(abs(value))  # |value| = mantissa · 2^exponent, 0.5 ≤ mantissa < 1
    return (256 if value < 0 else 0) + exponent - 1 + 127, int((2 * mantissa - 1) * 1024)


@given(FINITE32.filter(lambda v: abs(v) >= TINY))
def test_a_value_is_counted_in_its_bucket(value: float) -> None:
    stats = of(np.array([value], np.float32))
    page, index = bucket(value)
    assert list(stats.pages) == [page]
    assert np.flatnonzero(stats.pages[page]).tolist() == [index]
    assert (stats.count, stats.zeros, stats.minimum, stats.maximum) == (1, 0, value, value)


def test_zeros_and_denormals_share_one_bucket() -> None:
    below = np.nextafter(np.float32(TINY), np.float32(0))
    stats = of(np.array([0.0, -0.0, 1e-45, -1e-40, below, -below], np.float32))
    assert (stats.count, stats.zeros, stats.pages) == (6, 6, {})
    assert stats.maximum == float(below) and stats.minimum == -float(below)
    smallest = of(np.array([TINY, -TINY], np.float32))
    assert smallest.zeros == 0 and sorted(smallest.pages) == [1, 257]


def test_the_largest_float32_is_counted() -> None:
    largest = float(np.finfo(np.float32).max)
    stats = of(np.array([largest, -largest], np.float32))
    assert sorted(stats.pages) == [254, 510]
    assert stats.pages[254][1023] == stats.pages[510][1023] == 1
    assert math.isfinite(stats.sum)


def test_minus_zero_leaves_no_trace() -> None:
    plus, minus = of(np.zeros(2, np.float32)), of(np.array([-0.0, -0.0], np.float32))
    assert plus == minus
    assert math.copysign(1, minus.minimum) == math.copysign(1, minus.maximum) == 1


@given(st.lists(ARRAYS, max_size=6), st.randoms(use_true_random=False), st.integers(1, 50))
def test_batches_shards_and_order_do_not_matter(arrays: list[np.ndarray], random, batch: int) -> None:
    values = np.concatenate([np.zeros(0, np.float32), *arrays])
    whole = of(values)
    ragged = of(*(values[i : i + batch] for i in range(0, values.size, batch)))
    shuffled = list(arrays)
    random.shuffle(shuffled)
    cut = random.randint(0, len(shuffled))
    first, second = of(*shuffled[:cut]), of(*shuffled[cut:])
    first.merge(second)
    assert whole == ragged == first
    assert whole.sum == ragged.sum == first.sum and whole.sum_sq == first.sum_sq
    assert second == of(*shuffled[cut:]), "merging must not change what was merged"


@pytest.mark.parametrize("size", [1, 7, 1000, counting.CHUNK, counting.PENDING - 1, counting.PENDING, 300_001])
def test_counts_equal_those_of_a_plain_histogram(size: int) -> None:
    rng = np.random.default_rng(size)
    x = (rng.standard_normal(size) * np.exp2(rng.integers(-20, 20, size))).astype(np.float32)
    x[rng.random(size) < 0.3] = 0.0
    stats = of(x[: size // 3], x[size // 3 :])
    keys, counts = np.unique(x[x != 0].view(np.uint32) >> 13, return_counts=True)
    mine = {p * 1024 + int(i): int(c[i]) for p, c in stats.pages.items() for i in np.flatnonzero(c)}
    assert mine == dict(zip(keys.tolist(), counts.tolist(), strict=True))
    assert stats.zeros == int((x == 0).sum()) and stats.count == size
    assert all(page.any() for page in stats.pages.values())


def test_counters_are_emptied_before_they_could_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SLAB", 100_000)  # as 2^30 values are
    x = np.random.default_rng(0).standard_normal(350_000).astype(np.float32)
    whole = of(x[:175_000], x[175_000:])
    assert of(x) == whole
    stats = of(x[:90_000], x[90_000:180_000], x[180_000:190_000])
    assert stats._waiting == 190_000
    stats.update(x[190_000:200_000])
    assert stats._waiting == 10_000, "the counter may hold fewer than two slabs"
    stats.update(x[200_000:])
    assert stats == whole
    x[-1] = math.nan
    with pytest.raises(CalibrationError, match="1 NaN of 350000 values"):
        stats.update(x)
    assert stats == whole, "nothing is counted of an array that is refused, however many slabs it has"


def test_memory_does_not_grow_with_the_data() -> None:
    rng = np.random.default_rng(0)
    stats = TensorStatistics()
    for _ in range(20):
        stats.update(rng.standard_normal(100_000).astype(np.float32))
    assert stats.count == 2_000_000 and len(stats.pages) < 60
    assert sum(counts.nbytes for counts in stats.pages.values()) < 500_000
    assert all(counts.base is None for counts in stats.pages.values()), "a view would keep other memory alive"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8, np.uint8, np.int64, np.bool_])
def test_other_types_count_as_float32(dtype: type) -> None:
    x = np.arange(-40, 40).astype(np.float32).astype(dtype)
    assert of(x) == of(x.astype(np.float32))


def test_any_shape() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    flat = of(x.ravel())
    assert of(x) == of(x[:, ::-1].transpose(2, 0, 1)) == of(np.asfortranarray(x)) == flat
    assert of(np.float32(3.5)) == of(np.array([[3.5]]))
    assert of(np.zeros((0, 3), np.float32), np.zeros((5, 0))) == TensorStatistics()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan], "1 NaN of 2 values"),
        ([math.inf, -math.inf, 0.0], "2 infinite of 3 values"),
        ([math.nan, math.inf], "1 NaN and 1 infinite of 2 values"),
        ([1e300], "1 infinite of 1 values"),
    ],
)
def test_values_that_are_not_finite_are_refused_and_not_counted(values: list[float], message: str) -> None:
    stats = of(np.ones(3, np.float32))
    with pytest.raises(CalibrationError, match=message):
        stats.update(np.array(values, np.float64))
    assert stats == of(np.ones(3, np.float32))


@pytest.mark.parametrize("dtype", [np.complex64, "U3", object])
def test_what_is_not_a_real_number_is_refused(dtype: object) -> None:
    with pytest.raises(CalibrationError, match="only real numbers"):
        TensorStatistics().update(np.zeros(2, dtype))


def test_an_interrupt_does_not_leak_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(counting.PENDING).astype(np.float32)

    def interrupt(self, low, high):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(counting._Scratch, "take", interrupt)
        with pytest.raises(KeyboardInterrupt):
            counting.NumpyCounter().add(x)
    assert sum(int(c.sum()) for c in of(x).pages.values()) == x.size


def test_copies_are_apart() -> None:
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    stats = of(x, np.zeros(10))
    before = of(x, np.zeros(10))
    copies = [copy.copy(stats), copy.deepcopy(stats), pickle.loads(pickle.dumps(stats)), stats.positive_part()]
    assert copies[:3] == [before] * 3
    stats.update(x)
    stats.merge(stats)
    assert copies == [before] * 3 + [before.positive_part()]
    copies[0].update(x)
    assert copies[0] == of(x, x, np.zeros(10)) and copies[1] == before


def test_threads_count_apart() -> None:
    arrays = [np.random.default_rng(i).standard_normal(200_000).astype(np.float32) for i in range(4)]
    results = [TensorStatistics() for _ in arrays]
    threads = [threading.Thread(target=s.update, args=(x,)) for s, x in zip(results, arrays, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [of(x) for x in arrays]


@given(ARRAYS.filter(lambda x: x.size > 0 and np.abs(x).max() < 1e15))
def test_sums_follow_from_the_buckets(x: np.ndarray) -> None:
    stats = of(x)
    x64 = x.astype(np.float64)
    assert abs(stats.sum - x64.sum()) <= np.abs(x64).sum() * 2**-11 + x.size * TINY
    assert stats.sum_sq == pytest.approx(float((x64**2).sum()), rel=2**-9, abs=1e-37)


@given(ARRAYS)
def test_the_positive_part(x: np.ndarray) -> None:
    if x.size:
        assert of(x).positive_part().count == x.size
        mine, expected = of(x).positive_part(), of(np.maximum(x, 0))
        # A negative denormal is 0 in max(x, 0) and in the zero bucket alike.
        assert mine == expected


def test_unequal_statistics_compare_unequal() -> None:
    one = of(np.array([1.0, 2.0], np.float32))
    assert one != of(np.array([1.0, 1.5, 2.0], np.float32))
    assert one != of(np.array([1.0, 2.0 + 2**-22], np.float32)), "same buckets, another maximum"
    assert one != "something else"


def run(tensors: dict[str, np.ndarray], **provenance: object) -> Statistics:
    stats = Statistics(provenance=provenance)
    for name, x in tensors.items():
        stats.tensor(name).update(x)
    return stats


def test_statistics_are_a_mapping_that_merges() -> None:
    a, b, c = (np.random.default_rng(i).standard_normal(50).astype(np.float32) for i in range(3))
    left = run({"x": a, "only left": b}, model_sha256="m", samples=2, data=["one"], onnxq_version="1")
    right = run({"x": c}, model_sha256="m", samples=3, data=["two"], onnxq_version="1")
    whole = run({"x": np.concatenate([a, c]), "only left": b}, samples=5, data=["one", "two"], onnxq_version="1")
    whole.provenance["model_sha256"] = "m"
    other_way = run({"x": c}, **right.provenance)
    other_way.merge(left)
    left.merge(right)
    assert left == whole == other_way
    assert list(left) == ["x", "only left"] and len(left) == 2 and left["x"].count == 100
    with pytest.raises(KeyError):
        left["nothing"]


def test_provenance_merges_in_any_grouping() -> None:
    shards = [run({}, samples=i, data=[f"d{i % 2}"], version=f"v{i % 3}") for i in range(5)]
    in_order, grouped = run({}, samples=0), run({}, samples=0)
    for shard in shards:
        in_order.merge(shard)
    pairs = [run({}, **shards[i].provenance) for i in (4, 3)]
    pairs[0].merge(shards[2])
    pairs[1].merge(shards[1])
    for shard in (*pairs, shards[0]):
        grouped.merge(shard)
    assert in_order == grouped
    assert in_order.provenance == {"samples": 10, "data": ["d0", "d1"], "version": ["v0", "v1", "v2"]}


def test_statistics_of_another_model_do_not_merge() -> None:
    left = run({"x": np.ones(2)}, model_sha256="a" * 64)
    with pytest.raises(CalibrationError, match="another model"):
        left.merge(run({"x": np.ones(2)}, model_sha256="b" * 64))
    assert left == run({"x": np.ones(2)}, model_sha256="a" * 64)
