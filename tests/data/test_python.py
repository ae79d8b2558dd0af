"""Samples from Python objects: what is read once, what again, and what the user's own mistakes look like."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.data import python
from onnxq.data.source import DataSource, InputSpec, batches, open_data
from onnxq.errors import DataError

F32 = np.dtype(np.float32)
INPUTS = [InputSpec("x", ("N", 3), F32)]


def feeds(count: int = 4) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"x": np.full((1, 3), i, np.float32)}


def values(source: DataSource, start: int = 0) -> list[int]:
    return [int(s.feeds["x"][0, 0]) for s in source.samples(start)]


class Reader:
    """onnxruntime's protocol."""

    def __init__(self, count: int = 4) -> None:
        self._count, self._feeds = count, feeds(count)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


class RewindingReader(Reader):
    def rewind(self) -> None:
        self._feeds = feeds(self._count)


class Loader:
    """Like a torch DataLoader: a new iterator each time."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return feeds()


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(feeds()),
        lambda: tuple(feeds()),
        feeds,
        Loader,
        Reader,
        RewindingReader,
        lambda: feeds,
        lambda: Reader,
    ],
)
def test_every_kind_can_be_read_again(make: Any) -> None:
    source = open_data(make(), INPUTS)
    assert (source.kind, source.labels_available) == ("iterable", False)
    assert values(source) == values(source) == [0, 1, 2, 3]
    assert values(source, 3) == [3]
    assert values(source, 4) == []
    assert source.count() == 4


@pytest.mark.parametrize("make", [feeds, Reader, RewindingReader, Loader])
def test_a_pass_may_stop_early(make: Any) -> None:
    source = open_data(make(), INPUTS)
    assert [int(s.feeds["x"][0, 0]) for s in itertools.islice(source.samples(), 2)] == [0, 1]
    assert values(source) == [0, 1, 2, 3]


def test_names_say_which_sample() -> None:
    source = open_data([{"x": np.zeros((2, 3))}, {"x": np.zeros((1, 3))}], INPUTS)
    assert [n for b in batches(source, INPUTS, 8) for n in b.names] == ["sample 0[0]", "sample 0[1]", "sample 1"]
    assert source.describe()["name"] == "list"


def test_plain_lists_are_arrays() -> None:
    assert values(open_data([{"x": [[1.0, 2.0, 3.0]]}], INPUTS)) == [1]


def test_a_generator_may_reuse_its_buffer() -> None:
    def reusing() -> Iterator[dict[str, Any]]:
        buffer = np.zeros((1, 3), np.float32)
        for i in range(4):
            buffer[:] = i
            yield {"x": buffer}

    fixed = [InputSpec("x", (4, 3), F32)]
    (batch,) = batches(open_data(reusing(), fixed), fixed, None)
    assert batch.feeds["x"][:, 0].tolist() == [0, 1, 2, 3]
    assert values(open_data(reusing(), INPUTS)) == [0, 1, 2, 3]


def test_a_large_one_shot_iterator_streams_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "CACHE_BYTES", 2 * 12)
    source = open_data(feeds(), INPUTS)
    assert source.describe()["sha256"] is None  # asking does not use it up
    assert not source.labels_available
    assert values(source) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"feeds: can be read only once and is too large to keep .*give a list"):
        values(source)
    assert source.count() == 4
    assert source.describe()["sha256"] == open_data(list(feeds()), INPUTS).describe()["sha256"]


def test_a_limit_takes_no_more_than_needed() -> None:
    endless = ({"x": np.full((1, 3), i, np.float32)} for i in itertools.count())
    source = open_data(endless, INPUTS, limit=3)
    assert values(source) == values(source) == [0, 1, 2]
    assert source.count() == 3
    assert int(next(endless)["x"][0, 0]) == 3


def test_a_rewound_reader_is_not_silently_cut() -> None:
    source = open_data(RewindingReader(), INPUTS)
    first = source.samples()
    next(first)
    assert len(list(source.samples())) == 4
    with pytest.raises(DataError, match="was rewound while it was being read"):
        list(first)


def test_every_pass_must_give_the_same_number() -> None:
    once = feeds()
    source = open_data(lambda: once, INPUTS)
    assert len(values(source)) == 4
    with pytest.raises(DataError, match="yielded no samples"):
        values(source)
    lengths = iter([4, 3])
    source = open_data(lambda: feeds(next(lengths)), INPUTS)
    assert len(values(source)) == 4
    with pytest.raises(DataError, match="yielded 3 samples, expected 4"):
        values(source)


@pytest.mark.parametrize("data", [[], (), iter(()), Reader(0), list])
def test_no_samples(data: Any) -> None:
    with pytest.raises(DataError, match="yielded no samples"):
        values(open_data(data, INPUTS))


def test_labels() -> None:
    source = open_data([{"x": np.zeros((2, 3)), "labels": [3, 4]}, {"x": np.zeros((1, 3)), "labels": 5}], INPUTS)
    assert source.labels_available
    assert [b.labels.tolist() for b in batches(source, INPUTS, 8) if b.labels is not None] == [[3, 4], [5]]
    assert open_data(iter([{"x": np.zeros((1, 3)), "labels": 5}]), INPUTS).labels_available
    with pytest.raises(DataError, match="labels are given for some samples only"):
        values(open_data([{"x": np.zeros((1, 3)), "labels": 5}, {"x": np.zeros((1, 3))}], INPUTS))
    named = [*INPUTS, InputSpec("labels", ("N",), np.dtype(np.int64))]
    source = open_data([{"x": np.zeros((1, 3)), "labels": [5]}], named)
    assert not source.labels_available
    assert next(source.samples()).feeds["labels"].tolist() == [5]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (np.zeros((1, 3)), "sample 1 is a ndarray, expected a dict"),
        ((np.zeros((1, 3)), 0), "sample 1 is a tuple, expected a dict"),
        ({"y": np.zeros((1, 3))}, "sample 1: expected the model's inputs 'x', got 'y'"),
        ({}, "sample 1: expected the model's inputs 'x', got nothing"),
        ({"x": np.zeros((1, 4))}, "sample 1: input 'x' has shape 1x4, expected Nx3"),
        ({"x": np.zeros((1, 3), int)}, "sample 1: input 'x' is int64, expected float32"),
        ({"x": [[1.0], [2.0, 3.0]]}, "sample 1: input 'x' cannot be converted to an array"),
        ({"x": np.full((1, 3), np.nan)}, "sample 1: input 'x' contains NaN"),
        ({"x": np.zeros((2, 3)), "labels": [1, 2, 3]}, "sample 1: 3 labels for 2 samples"),
    ],
)
@pytest.mark.parametrize("wrap", [list, iter])
def test_a_bad_feed_is_named(feed: Any, message: str, wrap: Any) -> None:
    source = open_data(wrap([{"x": np.zeros((1, 3))}, feed, {"x": np.zeros((1, 3))}]), INPUTS)
    for _ in range(2):  # a failed generator must not pass for one that ended
        with pytest.raises(DataError, match=message) as caught:
            values(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [5, object(), 1.5])
def test_what_is_no_data(data: Any) -> None:
    with pytest.raises(DataError, match=r"cannot be read as data .*iterable of dicts"):
        open_data(data, INPUTS)


def test_a_failure_in_the_users_code_keeps_its_cause() -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield next(feeds())
        raise KeyError("boom")

    for source in (open_data(failing(), INPUTS), open_data(failing, INPUTS)):
        with pytest.raises(DataError, match="failing: failed while yielding samples: KeyError: 'boom'") as caught:
            values(source)
        assert isinstance(caught.value.__cause__, KeyError)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    name = f"calib_{abs(hash(tmp_path))}"
    path = tmp_path / f"{name}.py"
    path.write_text(
        "import numpy as np\n"
        "def load():\n    return ({'x': np.full((1, 3), i, np.float32)} for i in range(4))\n"
        "class Reader:\n"
        "    def __init__(self): self.i = 0\n"
        "    def get_next(self):\n"
        "        self.i += 1\n"
        "        return {'x': np.full((1, 3), self.i - 1, np.float32)} if self.i <= 4 else None\n"
        "def failing():\n    raise ValueError('no\\nluck')\n"
        "def number():\n    return 5\n"
        "constant = 5\n"
    )
    return path


@pytest.mark.parametrize("attribute", ["load", "Reader"])
def test_module_callable(module: Path, attribute: str) -> None:
    source = open_data(f"{module.stem}:{attribute}", INPUTS)
    assert (source.kind, source.count()) == ("python", None)
    assert values(source) == values(source) == [0, 1, 2, 3]
    assert source.describe() == {
        "kind": "python",
        "name": f"{module.stem}:{attribute}",
        "samples": 4,
        "labelled": False,
        "sha256": open_data(list(feeds()), INPUTS).describe()["sha256"],
        "preprocess": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module_x:load", "cannot import no_such_module_x: No module named"),
        ("{}.py:load", "cannot import .*; write .*:load"),
        ("{}:lod", "has no 'lod'"),
        ("{}:constant", "constant is a int, not a callable"),
        ("{}:failing", "failed: ValueError: no$"),
        ("{}:number", "cannot be read as data"),
    ],
)
def test_bad_module_callables(module: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(open_data(text.format(module.stem), INPUTS))


def test_a_module_that_fails_to_import(module: Path) -> None:
    module.write_text("1 / 0")
    with pytest.raises(DataError, match=r"importing .* failed: ZeroDivisionError: division by zero"):
        open_data(f"{module.stem}:load", INPUTS)


def test_sys_path_is_left_as_it_was(module: Path) -> None:
    import sys

    before = list(sys.path)
    values(open_data(f"{module.stem}:load", INPUTS))
    assert sys.path == before
