"""Folders of images: order, labels, and every way in which one can be wrong."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.data.preprocess import Preprocess
from onnxq.data.source import DataSource, InputSpec, batches, open_data
from onnxq.errors import ConfigError, DataError, MissingDependencyError

Image = pytest.importorskip("PIL.Image")
F32 = np.dtype(np.float32)
INPUTS = [InputSpec("x", ("N", 3, 4, 4), F32)]


def put(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(["b.png", "a.png", "c.PNG"]):
        put(tmp_path / name, i + 1)
    (tmp_path / "README.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def opened(folder: Path, inputs: list[InputSpec] = INPUTS, limit: int | None = None) -> DataSource:
    return open_data(folder, inputs, preprocess="raw", limit=limit)


def values(source: DataSource, start: int = 0) -> list[float]:
    return [float(s.feeds["x"].flat[0]) for s in source.samples(start)]


def test_by_name_without_labels(folder: Path) -> None:
    source = opened(folder)
    assert (source.kind, source.count(), source.labels_available) == ("image folder", 3, False)
    assert values(source) == values(source) == [2, 1, 3]
    assert values(source, 1) == [1, 3]
    assert [s.names for s in source.samples()] == [("a.png",), ("b.png",), ("c.PNG",)]
    assert [b.feeds["x"].shape for b in batches(source, INPUTS, 2)] == [(2, 3, 4, 4), (1, 3, 4, 4)]
    assert values(opened(str(folder), limit=2)) == [2, 1]  # type: ignore[arg-type]


def test_labels_csv_gives_the_order(folder: Path) -> None:
    (folder / "labels.csv").write_text("﻿label, file ,note\n7,c.PNG,x\n\n0,a.png,\n3,b.png,y\n", encoding="utf-8")
    source = opened(folder)
    assert values(source) == [3, 2, 1]
    assert [b.labels.tolist() for b in batches(source, INPUTS, 2) if b.labels is not None] == [[7, 0], [3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name the columns file,label, not nothing"),
        ("a.png,1\n", "first line must name the columns file,label, not a.png,1"),
        ("file,label\n", "lists no file"),
        ("file,label\na.png\n", "line 2: 1 fields, expected 2"),
        ("file,label\na.png,1,2\n", "line 2: 3 fields, expected 2"),
        ("file,label\na.png,cat\n", "line 2: label 'cat' is not a class number"),
        ("file,label\na.png,-1\n", "line 2: label '-1' is not a class number"),
        ("file,label\na.png,1\na.png,1\n", "line 3: a.png is listed twice"),
        ("file,label\na.png,1\nd.png,1\n", "line 3: 'd.png' is not in the folder"),
        ("file,label\n,1\n", "line 2: '' is not in the folder"),
        ('file,label\n"a.png,1\n', "not a CSV file"),
        ("file,label\na.png,1\n", "has no label for b.png and 1 more"),
    ],
)
def test_bad_labels(folder: Path, text: str, message: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=f"labels.csv.*{message}") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_text(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"file,label\n\xff,1\n")
    with pytest.raises(DataError, match=r"labels.csv: not a CSV file"):
        opened(folder)


def test_labels_without_images(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(DataError, match=r"'a\.png' is not in the folder"):
        opened(tmp_path)


def test_class_subfolders_take_turns(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "ant/1.png", "ant/2.png", "ant/3.png"):
        put(tmp_path / name, 0)
    (tmp_path / "empty").mkdir()
    samples = list(opened(tmp_path).samples())
    names = ["ant/1.png", "cat/1.png", "dog/1.png", "ant/2.png", "cat/2.png", "ant/3.png"]
    assert [s.names[0] for s in samples] == names
    assert [s.labels.tolist() for s in samples if s.labels is not None] == [[0], [1], [2], [0], [1], [0]]


def test_numbered_class_subfolders_are_their_labels(tmp_path: Path) -> None:
    for name in ("10/a.png", "9/a.png"):
        put(tmp_path / name, 0)
    assert [s.labels.tolist() for s in opened(tmp_path).samples() if s.labels is not None] == [[10], [9]]


def test_labels_csv_may_name_files_in_subfolders(tmp_path: Path) -> None:
    put(tmp_path / "cat/1.png", 5)
    (tmp_path / "labels.csv").write_text("file,label\ncat/1.png,281\n")
    assert [s.labels.tolist() for s in opened(tmp_path).samples() if s.labels is not None] == [[281]]


def test_images_in_both_places(folder: Path) -> None:
    put(folder / "cat" / "1.png", 1)
    with pytest.raises(DataError, match="there are images both in it and in its subfolders \\(cat, …\\)"):
        opened(folder)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(folder: Path, content: bytes | None) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"b\.png: not a readable image: ") as caught:
        list(opened(folder).samples())
    assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "t.jpg")
    whole = (tmp_path / "t.jpg").read_bytes()
    (tmp_path / "t.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"t\.jpg: not a readable image: image file is truncated"):
        list(open_data(tmp_path, [InputSpec("x", (1, 3, 64, 64), F32)], preprocess="raw").samples())


def test_an_image_of_the_wrong_size_is_named(folder: Path) -> None:
    put(folder / "b.png", 0, size=(5, 6))
    with pytest.raises(DataError, match=r"b\.png: input 'x' has shape 1x3x6x5, expected Nx3x4x4 .*; size, crop"):
        list(opened(folder).samples())


def test_a_too_small_image_is_named(folder: Path, tmp_path: Path) -> None:
    spec = tmp_path / "p.toml"
    spec.write_text("crop = 5")
    with pytest.raises(DataError, match=r"a\.png: the image, 4x4, is smaller than the crop, 5x5"):
        list(open_data(folder, INPUTS, preprocess=spec).samples())


def test_models_without_batch_axis_or_with_a_fixed_batch(folder: Path) -> None:
    plain = [InputSpec("x", (3, 4, 4), F32)]
    assert [(b.count, b.feeds["x"].shape) for b in batches(opened(folder, plain), plain, 8)] == [(1, (3, 4, 4))] * 3
    grey = [InputSpec("x", (2, 4, 4), F32)]
    source = open_data(folder, grey, preprocess=Preprocess(channels="gray"))
    assert [(b.count, b.feeds["x"].shape) for b in batches(source, grey, 8)] == [(2, (2, 4, 4)), (1, (2, 4, 4))]
    two = [InputSpec("x", (2, 3, 4, 4), F32)]
    found = list(batches(opened(folder, two), two, 8))
    assert [(b.count, b.feeds["x"].shape, len(b.names)) for b in found] == [(2, (2, 3, 4, 4), 2), (1, (2, 3, 4, 4), 1)]


def test_images_need_a_spec_and_a_model_that_takes_them(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"images need a preprocessing spec \(--preprocess\).*imagenet-tf"):
        open_data(folder, INPUTS)
    with pytest.raises(DataError, match="does not accept an image"):
        opened(folder, [InputSpec("x", ("N", 10), F32)])
    with pytest.raises(DataError, match="this one has 2: x, y"):
        opened(folder, [*INPUTS, InputSpec("y", ("N",), F32)])


def test_describe(folder: Path) -> None:
    source = opened(folder, limit=2)
    content = (folder / "a.png").read_bytes() + (folder / "b.png").read_bytes()
    found = source.describe()
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found | {"sha256": "", "preprocess": {}} == {
        "kind": "image folder",
        "name": folder.name,
        "samples": 2,
        "labelled": False,
        "sha256": "",
        "preprocess": {},
    }
    assert found["preprocess"]["name"] == "raw"
    assert str(folder.parent) not in repr(found)


def test_images_are_read_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Image.open

    def recording(file: Path) -> Any:
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(Image, "open", recording)
    samples = opened(folder).samples(1)
    assert read == []
    next(samples)
    assert read == ["b.png"]


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'onnxq\[images\]'"):
        opened(folder)
