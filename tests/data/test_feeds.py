"""Folders of feeds: .npz files, and ONNX test data."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxq.data.source import InputSpec, batches, open_data
from onnxq.errors import ConfigError, DataError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
INPUTS = [InputSpec("x", ("N", 3), F32), InputSpec("ids", ("N",), I64)]


def feed(count: int, first: int = 0) -> dict[str, Any]:
    x = np.arange(3 * first, 3 * (first + count), dtype=np.float32).reshape(count, 3)
    return {"x": x, "ids": np.arange(first, first + count)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count, first in (("f10", 1, 5), ("f2", 3, 2), ("f1", 2, 0)):
        np.savez(tmp_path / f"{name}.npz", **feed(count, first), labels=np.arange(first, first + count))
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_npz_folder(folder: Path) -> None:
    source = open_data(folder, INPUTS)
    assert (source.kind, source.count(), source.labels_available) == ("npz folder", 6, True)
    for start in range(8):
        found = list(batches(source, INPUTS, 4, start))
        assert [i for b in found for i in b.feeds["ids"]] == list(range(start, 6))
        assert [i for b in found if b.labels is not None for i in b.labels] == list(range(start, 6))
    assert [b.count for b in batches(source, INPUTS, 4)] == [2, 3, 1]  # natural order, feeds as they are
    assert [n for s in source.samples() for n in s.names] == [
        *("f1.npz[0]", "f1.npz[1]"),
        *("f2.npz[0]", "f2.npz[1]", "f2.npz[2]"),
        "f10.npz",
    ]


def test_npz_folder_limit_and_hash(folder: Path) -> None:
    source = open_data(folder, INPUTS, limit=3)
    assert source.count() == 3
    assert [i for s in source.samples() for i in s.feeds["ids"]] == [0, 1, 2]
    content = (folder / "f1.npz").read_bytes() + (folder / "f2.npz").read_bytes()
    found = source.describe()
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert (found["name"], found["samples"], found["labelled"]) == (folder.name, 3, True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": feed(2)["x"]}, "expected the model's inputs 'x', 'ids', got 'x'"),
        (feed(2) | {"labels": np.zeros(3, int)}, "3 labels for 2 samples"),
        ({"x": np.zeros((2, 4)), "ids": np.arange(2)}, "input 'x' has shape 2x4, expected Nx3 \\(axis 1 must be 3\\)"),
        ({"x": np.zeros(3), "ids": np.arange(2)}, "input 'x' has shape 3, expected Nx3 .*leading batch axis missing"),
        ({"x": np.full((2, 3), np.nan), "ids": np.arange(2)}, "input 'x' contains NaN"),
    ],
)
def test_a_bad_feed_is_named(folder: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(folder / "f2.npz", **arrays)
    with pytest.raises(DataError, match=rf"f2\.npz: {message}"):
        list(open_data(folder, INPUTS).samples())


def test_a_broken_npz_is_named(folder: Path) -> None:
    (folder / "f2.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"f2\.npz: not a readable \.npz file"):
        open_data(folder, INPUTS).count()


def put(folder: Path, arrays: list[np.ndarray]) -> None:
    folder.mkdir()
    for i, array in enumerate(arrays):
        (folder / f"input_{i}.pb").write_bytes(onnx.numpy_helper.from_array(array, f"any{i}").SerializeToString())
    (folder / "output_0.pb").write_bytes(b"")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    for i in (0, 10, 2):
        put(tmp_path / f"test_data_set_{i}", [feed(1, i)["x"], feed(1, i)["ids"]])
    (tmp_path / "model.onnx").write_bytes(b"")
    np.savez(tmp_path / "test_data_0.npz", inputs=np.zeros(1))  # the model zoo's older form lies beside it
    return tmp_path


def test_onnx_test_data(sets: Path) -> None:
    source = open_data(sets, INPUTS)
    assert (source.kind, source.count(), source.labels_available) == ("ONNX test data", 3, False)
    samples = list(source.samples())
    assert [int(s.feeds["ids"][0]) for s in samples] == [0, 2, 10]
    assert [s.names for s in samples] == [("test_data_set_0",), ("test_data_set_2",), ("test_data_set_10",)]
    assert [int(s.feeds["ids"][0]) for s in source.samples(2)] == [10]
    one = open_data(sets / "test_data_set_2", INPUTS)
    assert [int(s.feeds["ids"][0]) for s in one.samples()] == [2]
    content = b"".join((sets / f"test_data_set_2/input_{i}.pb").read_bytes() for i in (0, 1))
    assert one.describe()["sha256"] == hashlib.sha256(content).hexdigest()


def test_onnx_test_data_that_does_not_fit(sets: Path) -> None:
    with pytest.raises(DataError, match=r"_0: expected input_0.pb to input_0.pb, got input_0.pb, input_1.pb"):
        list(open_data(sets, INPUTS[:1]).samples())
    with pytest.raises(DataError, match="test_data_set_0: input 'ids' has shape 1x3, expected N"):
        list(open_data(sets, INPUTS[::-1]).samples())
    (sets / "test_data_set_2/input_1.pb").unlink()
    with pytest.raises(DataError, match=r"test_data_set_2: expected input_0.pb to input_1.pb, got input_0.pb"):
        list(open_data(sets, INPUTS).samples())


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"not a tensor", None])
def test_a_broken_tensor_is_named(sets: Path, content: bytes | None) -> None:
    file = sets / "test_data_set_2/input_1.pb"
    file.write_bytes(file.read_bytes()[:-4] if content is None else content)
    with pytest.raises(DataError, match=r"test_data_set_2/input_1\.pb: not a serialized tensor") as caught:
        list(open_data(sets, INPUTS).samples())
    assert "\n" not in str(caught.value)


def test_a_scalar_of_test_data(tmp_path: Path) -> None:
    put(tmp_path / "test_data_set_0", [np.array(2.5, np.float32)])
    (sample,) = open_data(tmp_path, [InputSpec("t", (), F32)]).samples()
    assert (sample.count, sample.feeds["t"].shape, float(sample.feeds["t"])) == (1, (), 2.5)


def test_folders_with_nothing_or_too_much(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: the folder is empty"):
        open_data(tmp_path / "empty", INPUTS)
    (tmp_path / "empty" / "readme.md").write_text("")
    with pytest.raises(DataError, match=r"empty: nothing to read in it: no images, no \.npz files, no test_data_set_"):
        open_data(str(tmp_path / "empty"), INPUTS)
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"contains both \.npz files and images"):
        open_data(folder, INPUTS)
    with pytest.raises(DataError, match=r"notes\.txt: not data that onnxq reads"):
        open_data(folder / "notes.txt", INPUTS)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_data(tmp_path / "nowhere", INPUTS)


def test_preprocessing_is_for_images(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"preprocessing applies to images .*, not to npz folder data"):
        open_data(folder, INPUTS, preprocess="raw")
