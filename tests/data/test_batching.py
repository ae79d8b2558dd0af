"""Batches hold the samples in order, whatever the batch size and the start."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.data.source import Batch, DataSource, InputSpec, batches, open_data
from onnxq.errors import ConfigError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
FREE = [InputSpec("x", ("N", 3), F32)]


def rows(found: list[Batch], name: str = "x") -> np.ndarray:
    """The real samples of batches, one after the other."""
    return np.concatenate([b.feeds[name][: b.count] for b in found])


def feeds_of(lengths: list[int]) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Feeds of these many samples, and all the samples."""
    data = np.arange(3 * sum(lengths), dtype=np.float32).reshape(-1, 3)
    cuts = np.cumsum([0, *lengths])
    return [{"x": data[a:b], "labels": np.arange(a, b)} for a, b in itertools.pairwise(cuts)], data


sizes = st.integers(1, 9)


@given(total=st.integers(1, 20), size=sizes, start=st.integers(0, 22), fixed=st.none() | st.integers(1, 6))
def test_single_samples(total: int, size: int, start: int, fixed: int | None) -> None:
    data = np.arange(3 * total, dtype=np.float32).reshape(total, 3)
    inputs = [InputSpec("x", (fixed or "N", 3), F32)]
    source = open_data({"x": data, "labels": np.arange(total)}, inputs)
    found = list(batches(source, inputs, size, start))
    wanted = fixed or size
    assert sum(b.count for b in found) == max(0, total - start)
    assert [b.count for b in found[:-1]] == [wanted] * max(0, len(found) - 1)
    assert all(b.labels is not None and len(b.names) == b.count == len(b.labels) for b in found)
    if found:
        np.testing.assert_array_equal(rows(found), data[start:])
        np.testing.assert_array_equal(np.concatenate([b.labels for b in found]), np.arange(start, total))
        tail = found[-1]
        if fixed:  # padded with the last sample
            assert tail.feeds["x"].shape == (fixed, 3)
            assert (tail.feeds["x"][tail.count :] == data[-1]).all()
        else:
            assert len(tail.feeds["x"]) == tail.count


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6), size=sizes, start=st.integers(0, 45))
def test_feeds_that_came_batched_are_passed_on(lengths: list[int], size: int, start: int) -> None:
    feeds, data = feeds_of(lengths)
    source = open_data(feeds, FREE)
    assert source.count() in (None, sum(lengths))
    found = list(batches(source, FREE, size, start))
    assert sum(b.count for b in found) == max(0, len(data) - start)
    if found:
        np.testing.assert_array_equal(rows(found), data[start:])
        # only the feed that start falls into is cut
        assert [b.count for b in found[1:]] == lengths[len(lengths) - len(found) + 1 :]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    fixed=st.integers(1, 6),
    start=st.integers(0, 45),
)
def test_a_fixed_batch_regroups_feeds(lengths: list[int], fixed: int, start: int) -> None:
    inputs = [InputSpec("x", (fixed, 3), F32)]
    feeds, data = feeds_of(lengths)
    feeds = [{"x": f["x"]} for f in feeds] if lengths != [1] else feeds
    found = list(batches(open_data(feeds, inputs), inputs, 5, start))
    assert all(b.feeds["x"].shape == (fixed, 3) for b in found)
    assert sum(b.count for b in found) == max(0, len(data) - start)
    if found:
        np.testing.assert_array_equal(rows(found), data[start:])


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6), limit=st.integers(1, 45))
def test_limit_takes_the_first_samples(lengths: list[int], limit: int) -> None:
    feeds, data = feeds_of(lengths)
    source = open_data(feeds, FREE, limit=limit)
    found = list(batches(source, FREE, None))
    np.testing.assert_array_equal(rows(found), data[:limit])
    assert source.count() == min(limit, len(data))


def test_no_batch_size_is_one_sample() -> None:
    source = open_data({"x": np.zeros((3, 3))}, FREE)
    assert [b.count for b in batches(source, FREE, None)] == [1, 1, 1]


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_must_be_positive(size: int) -> None:
    with pytest.raises(ConfigError, match="batch size must be 1 or more"):
        list(batches(open_data({"x": np.zeros((3, 3))}, FREE), FREE, size))


def test_full_feeds_are_not_copied() -> None:
    inputs = [InputSpec("x", (4, 3), F32)]
    source = open_data([{"x": np.zeros((4, 3), np.float32)}] * 2, inputs)
    samples = list(source.samples())

    class Again(type(source)):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

        def samples(self, start: int = 0) -> Iterator:
            return iter(samples)

    assert [b.feeds["x"] is s.feeds["x"] for b, s in zip(batches(Again(), inputs, None), samples, strict=True)] == [
        True,
        True,
    ]


def counts(source: DataSource, inputs: list[InputSpec], size: int) -> list[int]:
    return [b.count for b in batches(source, inputs, size)]


def test_scalars_end_a_batch_where_they_change() -> None:
    inputs = [*FREE, InputSpec("t", (), F32)]
    data = {"x": np.zeros((5, 3)), "t": np.array([1.0, 1.0, 1.0, 2.0, 2.0])}
    found = list(batches(open_data(data, inputs), inputs, 2))
    assert [b.count for b in found] == [2, 1, 2]
    assert [float(b.feeds["t"]) for b in found] == [1, 1, 2]
    assert all(b.feeds["t"].shape == () for b in found)


def test_a_table_beside_a_free_batch_is_shared() -> None:
    inputs = [*FREE, InputSpec("anchors", (100, 4), F32)]
    anchors = np.arange(400.0).reshape(100, 4)
    found = list(batches(open_data({"x": np.zeros((5, 3)), "anchors": anchors}, inputs), inputs, 4))
    assert [b.count for b in found] == [4, 1]
    assert all((b.feeds["anchors"] == anchors).all() for b in found)


def test_several_inputs_and_integers() -> None:
    inputs = [InputSpec("ids", ("N", 4), I64), InputSpec("mask", ("M", 4), I64)]
    ids = np.arange(20, dtype=np.int32).reshape(5, 4)
    found = list(batches(open_data({"ids": ids, "mask": ids % 2}, inputs), inputs, 3))
    np.testing.assert_array_equal(rows(found, "ids"), ids)
    np.testing.assert_array_equal(rows(found, "mask"), ids % 2)
    assert found[0].feeds["ids"].dtype == I64


def test_other_sizes_end_a_batch() -> None:
    inputs = [InputSpec("x", ("N", "L"), F32)]
    feeds = [{"x": np.zeros((1, n))} for n in (3, 3, 5)]
    assert counts(open_data(feeds, inputs), inputs, 8) == [1, 1, 1]  # feeds are passed on as they are
    fixed = [InputSpec("x", (2, "L"), F32)]
    found = list(batches(open_data([{"x": np.full((1, n), float(n))} for n in (3, 5, 5, 5)], fixed), fixed, None))
    assert [(b.count, b.feeds["x"].shape) for b in found] == [(1, (2, 3)), (2, (2, 5)), (1, (2, 5))]


def test_zero_size_dimensions() -> None:
    inputs = [InputSpec("x", ("N", 0, 4), F32)]
    found = list(batches(open_data({"x": np.zeros((3, 0, 4))}, inputs), inputs, 2))
    assert [(b.count, b.feeds["x"].shape) for b in found] == [(2, (2, 0, 4)), (1, (1, 0, 4))]
    found = list(batches(open_data([{"x": np.zeros((2, 0, 4))}], inputs), inputs, 8))
    assert [(b.count, b.feeds["x"].shape) for b in found] == [(2, (2, 0, 4))]
    none = [InputSpec("x", (0, 4), F32)]
    found = list(batches(open_data([{"x": np.zeros((0, 4))}] * 2, none), none, 8))
    assert [(b.count, b.feeds["x"].shape) for b in found] == [(1, (0, 4))] * 2


def test_only_scalars() -> None:
    inputs = [InputSpec("t", (), F32)]
    assert counts(open_data([{"t": 1.0}, {"t": 2.0}], inputs), inputs, 8) == [1, 1]
    assert counts(open_data({"t": np.array([1.0, 2.0, 3.0])}, inputs), inputs, 8) == [1, 1, 1]
    assert counts(open_data({"t": np.array(1.0)}, inputs), inputs, 8) == [1]


def test_inputs_that_disagree_on_the_batch_are_one_sample() -> None:
    inputs = [InputSpec("x", ("N", 3), F32), InputSpec("boxes", ("B", 4), F32)]
    feeds = [{"x": np.zeros((1, 3)), "boxes": np.zeros((n, 4))} for n in (7, 0)]
    found = list(batches(open_data(feeds, inputs), inputs, 8))
    assert [(b.count, b.feeds["boxes"].shape) for b in found] == [(1, (7, 4)), (1, (0, 4))]


def test_one_label_makes_a_feed_one_sample() -> None:
    """A sequence model without batch axis: its fixed first axis is no batch."""
    inputs = [InputSpec("x", (16, 3), F32)]
    source = open_data({"x": np.zeros((5, 16, 3)), "labels": np.arange(5)}, inputs)
    assert source.count() == 5
    found = list(batches(source, inputs, 8, start=3))
    assert [(b.count, b.labels.tolist(), b.feeds["x"].shape) for b in found if b.labels is not None] == [
        (1, [3], (16, 3)),
        (1, [4], (16, 3)),
    ]
