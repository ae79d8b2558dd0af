"""Folders of images, decoded one at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.data.base import DataSource, Sample, hash_files
from onnxq.data.preprocess import Preprocess, pillow
from onnxq.data.spec import BatchPlan, InputSpec, as_labels, conform, first_line
from onnxq.errors import DataError, OnnxqError, printable

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
MAX_DIGITS = 18  # of a class number, which is an int64
LABELS_FILE = "labels.csv"
HINT = "; size, crop, channels and layout of the preprocessing determine this"


class ImageFolder(DataSource):
    """Images of a folder, with labels from labels.csv (columns file,label) or from class subfolders.

    Order: as in labels.csv; by name; or, for class subfolders, the first image of every class, then the second… so that
    any limit covers all classes equally. The label of a subfolder is its number if all names are numbers, else its
    index among the sorted names. labels.csv must list every image.
    """

    kind = "image folder"

    def __init__(
        self,
        root: Path,
        inputs: Sequence[InputSpec],
        preprocess: Preprocess,
        limit: int | None = None,
    ) -> None:
        super().__init__(inputs, limit)
        self.root = root
        self.preprocess = preprocess.for_input(self.inputs)
        self._files, self._labels = list_images(root)
        pillow()

    @property
    def labels_available(self) -> bool:
        return self._labels is not None

    def _total(self) -> int:
        return len(self._files)

    def _read(self, start: int) -> Iterator[Sample]:
        for i in range(start, len(self._files)):
            name = self._files[i]
            tensor = self.preprocess.tensor(read_pixels(self.root / name, self.preprocess))
            labels = None if self._labels is None else np.array([self._labels[i]])
            yield image_sample(tensor, labels, self.plan, str(self.root / name), name)

    def _name(self) -> str:
        return printable(self.root.resolve().name)

    def _preprocess(self) -> dict[str, Any]:
        return self.preprocess.as_dict()

    def _sha256(self) -> str:
        return hash_files(self.root / name for name in self._files[: self.count()])


def image_sample(tensor: np.ndarray, labels: np.ndarray | None, plan: BatchPlan, where: str, name: str) -> Sample:
    """A Sample from one preprocessed image; a batch axis is added unless the model has none."""
    spec = plan.inputs[0]
    array = tensor[None] if spec.shape is None or len(spec.shape) == 4 else tensor
    # a single gray channel can serve as the batch axis; three channels cannot
    free = plan.carriers if plan.fixed and len(array) == 1 else ()
    arrays = conform({spec.name: array}, plan.inputs, where, free, HINT)
    found = None if labels is None else as_labels(labels, where)
    if found is not None and found.size != 1:
        raise DataError(f"{where}: {found.size} labels for one image")
    return Sample(arrays, found, (name,), 1, mergeable=True)


def read_pixels(file: Path, preprocess: Preprocess) -> np.ndarray:
    """The pixels of an image file after resizing and cropping, uint8 H×W×channels. Raises DataError naming the file."""
    try:
        with pillow().open(file) as image:
            return preprocess.pixels(image)
    except OnnxqError as err:
        raise type(err)(f"{file}: {err}") from None
    except MemoryError:
        raise
    except Exception as err:  # decoders raise many types on damaged files
        raise DataError(f"{file}: not a readable image: {first_line(err)}") from err


def list_images(root: Path) -> tuple[list[str], list[int] | None]:
    """Image files relative to the folder, and their labels if there are any. Raises DataError."""
    top, classes = find_images(root)
    if top and classes:
        raise DataError(
            f"{root}: there are images both in it and in its subfolders ({classes[0][0]}, …); use one of the two"
        )
    found = top or [name for _, names in classes for name in names]
    if (root / LABELS_FILE).exists():
        files, labels = _read_labels(root)
        unlisted = sorted(set(found) - set(files))
        if unlisted:
            more = f" and {len(unlisted) - 1} more" if len(unlisted) > 1 else ""
            raise DataError(f"{root / LABELS_FILE}: has no label for {unlisted[0]}{more}")
        return files, labels
    if top:
        return top, None
    folders = [folder for folder, _ in classes]
    numbered = all(folder.isdecimal() and len(folder) <= MAX_DIGITS for folder in folders)
    pairs = [
        [(name, int(folder) if numbered else position) for name in names]
        for position, (folder, names) in enumerate(classes)
    ]
    mixed = [pair for row in zip_longest(*pairs) for pair in row if pair is not None]
    return [name for name, _ in mixed], [label for _, label in mixed]


def find_images(root: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Images directly in a folder, and those of each subfolder with any; sorted, without hidden files."""
    top: list[str] = []
    classes: list[tuple[str, list[str]]] = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names = [f"{entry.name}/{file.name}" for file in sorted(entry.iterdir()) if _is_image(file)]
            if names:
                classes.append((entry.name, names))
        elif _is_image(entry):
            top.append(entry.name)
    return top, classes


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _read_labels(root: Path) -> tuple[list[str], list[int]]:
    path = root / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path}: not a CSV file: {first_line(err)}") from None
    header = [column.strip() for column in rows[0]] if rows else []
    if "file" not in header or "label" not in header:
        raise DataError(f"{path}: the first line must name the columns file,label, not {','.join(header) or 'nothing'}")
    file_at, label_at = header.index("file"), header.index("label")
    labels: dict[str, int] = {}
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} fields, expected {len(header)} ({','.join(header)})")
        name, label = row[file_at].strip(), row[label_at].strip()
        if not label.isdecimal() or len(label) > MAX_DIGITS:
            raise DataError(f"{where}: label {label!r} is not a class number (0, 1, …)")
        if name in labels:
            raise DataError(f"{where}: {name} is listed twice")
        if not name or not (root / name).is_file():
            raise DataError(f"{where}: {name!r} is not in the folder")
        labels[name] = int(label)
    if not labels:
        raise DataError(f"{path}: lists no file")
    return list(labels), list(labels.values())
