"""Arrays with a leading sample axis: .npz files and dicts."""

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.data.arrays import NpzTable
from onnxq.data.source import InputSpec, batches, open_data
from onnxq.errors import ConfigError, DataError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
INPUTS = [InputSpec("x", ("N", 3), F32)]
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def npz(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_npz(tmp_path: Path, save: Any, transposed: bool, dtype: str) -> None:
    path = tmp_path / "data.npz"
    save(path, x=X.astype(dtype, order="F" if transposed else "C"), labels=np.arange(4, dtype=np.uint8))
    source = open_data(str(path), INPUTS)
    assert (source.kind, source.count(), source.labels_available) == ("npz", 4, True)
    for start in range(6):
        found = list(source.samples(start))
        np.testing.assert_array_equal(np.concatenate([X[:0], *(s.feeds["x"] for s in found)]), X[start:])
        assert [s.labels.tolist() for s in found if s.labels is not None] == [[i] for i in range(start, 4)]
    assert next(source.samples(2)).names == ("data.npz[2]",)


def test_every_header_version_numpy_writes(tmp_path: Path) -> None:
    """Version 2 headers are for very long ones; rows are read from either."""
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file, file.open("x.npy", "w") as stream:
        np.lib.format.write_array(stream, X, version=(2, 0))
    assert len(list(open_data(path, INPUTS).samples())) == 4


@given(
    data=hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(1, 3))),
    start=st.integers(0, 6),
)
def test_rows_of_a_table(tmp_path_factory: pytest.TempPathFactory, data: np.ndarray, start: int) -> None:
    path = npz(tmp_path_factory.mktemp("npz"), x=data)
    rows = list(NpzTable(path).rows("x", start))
    assert len(rows) == max(0, len(data) - start)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row, data[start + i])


def test_a_dict_of_arrays() -> None:
    source = open_data({"x": X.tolist()}, INPUTS)
    assert (source.kind, source.count(), source.labels_available) == ("arrays", 4, False)
    np.testing.assert_array_equal(np.concatenate([s.feeds["x"] for s in source.samples(1)]), X[1:])


def test_one_axis_more_holds_whole_feeds() -> None:
    data = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    source = open_data({"x": data}, INPUTS)
    assert source.count() == 8
    found = list(batches(source, INPUTS, 8, start=3))
    assert [b.count for b in found] == [1, 2, 2]
    np.testing.assert_array_equal(np.concatenate([b.feeds["x"] for b in found]), data.reshape(8, 3)[3:])
    assert open_data({"x": data, "labels": np.zeros((4, 2), int)}, INPUTS).count() == 8


def test_tables_of_several_inputs() -> None:
    inputs = [InputSpec("x", (1, 3), F32), InputSpec("boxes", (5, 4), F32), InputSpec("t", (), I64)]
    data = {"x": X, "boxes": np.zeros((4, 5, 4)), "t": np.array(3)}
    found = list(open_data(data, inputs).samples())
    assert [(s.feeds["x"].shape, s.feeds["boxes"].shape, int(s.feeds["t"])) for s in found] == [((1, 3), (5, 4), 3)] * 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": X}, "expected the model's inputs 'x', got 'y'"),
        ({"x": X, "y": X}, "expected the model's inputs 'x', got 'x', 'y'"),
        ({}, "got nothing"),
        ({"x": np.zeros((4, 5))}, "sample 0: input 'x' has shape 1x5, expected Nx3 \\(axis 1 must be 3\\)"),
        ({"x": np.zeros(3)}, "input 'x' has shape 3, expected Nx3 with axis 0 counting samples, or one leading axis"),
        ({"x": np.zeros((1, 1, 1, 3))}, "input 'x' has shape 1x1x1x3, expected Nx3"),
        ({"x": np.zeros((4, 3), int)}, "input 'x' is int64, expected float32"),
        ({"x": np.zeros((0, 3))}, "no samples"),
        ({"x": X, "labels": np.zeros(3, int)}, "3 labels for 4 samples"),
        ({"x": X, "labels": np.zeros(4)}, "labels must be one integer per sample, not float64"),
        ({"x": X, "labels": np.zeros((4, 10), int)}, "10 labels for 1 samples"),
        ({"x": X, "labels": np.array(3)}, "1 labels for 4 samples"),
        ({"images": np.zeros((4, 2, 2, 3), np.uint8)}, "uint8 'images' need a preprocessing spec"),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str, in_memory: bool) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_data(arrays if in_memory else npz(tmp_path, **arrays), INPUTS)
    assert str(caught.value).startswith("data" if in_memory else str(tmp_path / "data.npz"))


def test_inputs_must_have_as_many_samples(tmp_path: Path) -> None:
    inputs = [*INPUTS, InputSpec("y", ("N",), F32)]
    with pytest.raises(DataError, match="differ in the number of samples: 'x' 4, 'y' 3"):
        open_data(npz(tmp_path, x=X, y=np.zeros(3)), inputs)


def test_nan_names_the_sample(tmp_path: Path) -> None:
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(DataError, match=r"data.npz: sample 2: input 'x' contains NaN"):
        list(open_data(npz(tmp_path, x=bad), INPUTS).samples())


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.random.default_rng(0).normal(size=(4, 3)))
    whole = path.read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPI")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data.npz: not a readable .npz file: ") as caught:
            open_data(path, INPUTS)
        assert "\n" not in str(caught.value)
    damaged = bytearray(whole)
    damaged[180] ^= 0xFF  # inside the values: the checksum of the zip member finds it
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"not a readable .npz file: Bad CRC-32"):
        list(open_data(path, INPUTS).samples())


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"array 'x' contains Python objects"):
        open_data(npz(tmp_path, x=np.array([{}, None])), INPUTS)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.npz: no such file or folder"):
        open_data(tmp_path / "none.npz", INPUTS)


def test_images_with_preprocessing(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    inputs = [InputSpec("x", ("N", 3, 224, 224), F32)]
    source = open_data(npz(tmp_path, images=pixels, labels=np.arange(5)), inputs, preprocess="imagenet-tf", limit=4)
    assert (source.count(), source.labels_available) == (4, True)
    found = list(batches(source, inputs, 3))
    assert [(b.count, b.feeds["x"].shape) for b in found] == [(3, (3, 3, 224, 224)), (1, (1, 3, 224, 224))]


@pytest.mark.parametrize("key", ["images", "x"])
def test_small_images_need_no_pillow(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    inputs = [InputSpec("x", ("N", 3, 32, 32), F32)]
    source = open_data(npz(tmp_path, **{key: pixels}), inputs, preprocess="cifar10")
    mean, std = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])
    expected = ((pixels - mean) / std).transpose(0, 3, 1, 2)
    for sample, reference in zip(source.samples(), expected, strict=True):
        np.testing.assert_allclose(sample.feeds["x"][0], reference, rtol=1e-6)
    assert source.describe()["preprocess"]["name"] == "cifar10"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((1, 4, 4, 3), np.uint8)}, "expected uint8 'images' \\(and 'labels'\\), got 'pixels'"),
        ({"images": np.zeros((1, 4, 4, 3), np.uint8), "y": X}, "got 'images', 'y'"),
        ({"images": np.zeros((1, 4, 4, 3), np.float32)}, "'images' is float32 1x4x4x3; preprocessing needs uint8"),
        ({"images": np.zeros((1, 3, 4, 4), np.uint8)}, "sample 0: input 'x' has shape 1x3x3x4"),
        ({"images": np.zeros((1, 4, 4, 5), np.uint8)}, "'images' is uint8 1x4x4x5"),
        ({"images": np.zeros((1, 5, 4, 3), np.uint8)}, "input 'x' has shape 1x3x5x4, expected Nx3x4x4"),
    ],
)
def test_images_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(npz(tmp_path, **arrays), [InputSpec("x", ("N", 3, 4, 4), F32)], preprocess="raw")


def test_describe_hashes_content_and_order_only(tmp_path: Path) -> None:
    def digest(limit: int | None = None, **arrays: np.ndarray) -> str:
        return open_data(npz(tmp_path, **arrays), INPUTS, limit=limit).describe()["sha256"]

    first = digest(x=X)
    np.savez_compressed(tmp_path / "again.npz", x=X, labels=np.zeros(4, int))
    assert open_data(tmp_path / "again.npz", INPUTS).describe()["sha256"] == first
    assert open_data({"x": X}, INPUTS).describe()["sha256"] == first
    assert digest(x=X[::-1]) != first
    assert digest(x=X, limit=3) == digest(x=X[:3]) != first


def test_describe_names_no_path(tmp_path: Path) -> None:
    found = open_data(npz(tmp_path, x=X), INPUTS).describe()
    assert (found["kind"], found["name"], found["samples"], found["preprocess"]) == ("npz", "data.npz", 4, None)
    assert str(tmp_path) not in repr(found)


def test_preprocessing_without_images() -> None:
    with pytest.raises(ConfigError, match="preprocessing applies to images"):
        open_data([{"x": X}], INPUTS, preprocess="raw")
