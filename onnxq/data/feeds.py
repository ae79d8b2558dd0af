"""Samples from files with one feed each: a folder of .npz, or ONNX test_data_set_*/input_N.pb."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.data.arrays import NpzTable
from onnxq.data.base import LABELS, DataSource, Sample, count_samples, hash_files, make_sample, split_labels
from onnxq.data.spec import InputSpec, first_line
from onnxq.errors import DataError, printable

SET_PREFIX = "test_data_set_"


class FeedFiles(DataSource):
    """Feeds in files, in natural order (…_2 before …_10), forwarded unchanged."""

    def __init__(self, root: Path, feeds: Sequence[Path], inputs: Sequence[InputSpec], limit: int | None) -> None:
        super().__init__(inputs, limit)
        self.root = root
        self._feeds = sorted(feeds, key=natural)
        self._counts: list[int] | None = None

    def _read(self, start: int) -> Iterator[Sample]:
        first = 0
        if start:
            counts = self._all_counts()
            while first < len(counts) and start >= counts[first]:
                start -= counts[first]
                first += 1
        for path in self._feeds[first:]:
            feed, labels = self._load(path)
            sample = make_sample(feed, labels, self.plan, str(path), path.name)
            yield sample.part(start, sample.count, self.plan)
            start = 0

    def _total(self) -> int:
        return sum(self._all_counts())

    def _all_counts(self) -> list[int]:
        if self._counts is None:
            self._counts = [self._count(path) for path in self._feeds]
        return self._counts

    def _count(self, path: Path) -> int:
        feed, labels = self._load(path)
        return make_sample(feed, labels, self.plan, str(path), path.name).count

    def _used(self) -> list[Path]:
        """Number of feeds within the limit."""
        left = self.count() or 0
        used = []
        for path, count in zip(self._feeds, self._all_counts(), strict=True):
            if left <= 0:
                break
            used.append(path)
            left -= count
        return used

    def _name(self) -> str:
        return printable(self.root.resolve().name)

    @abstractmethod
    def _load(self, path: Path) -> tuple[dict[str, Any], Any]:
        """Feed and labels of one file."""


class NpzFolder(FeedFiles):
    """A folder of .npz files: each is one feed keyed by input name, with optional `labels`."""

    kind = "npz folder"

    @property
    def labels_available(self) -> bool:
        return self._labelled(NpzTable(self._feeds[0]))

    def _count(self, path: Path) -> int:
        table = NpzTable(path)  # reads the headers only
        if not all(table.shapes.get(name) for name in self.plan.carriers):
            return super()._count(path)
        labels = int(np.prod(table.shapes[LABELS])) if self._labelled(table) else None
        return count_samples(self.plan.rows(table.shapes), labels)

    def _labelled(self, table: NpzTable) -> bool:
        return LABELS in table.shapes and all(spec.name != LABELS for spec in self.inputs)

    def _load(self, path: Path) -> tuple[dict[str, Any], Any]:
        table = NpzTable(path)
        return split_labels({key: table.load(key) for key in table.shapes}, self.inputs)

    def _sha256(self) -> str:
        return hash_files(self._used())


class TestDataSets(FeedFiles):
    """ONNX test data: each test_data_set_*/ contains input_0.pb, input_1.pb… for the model's inputs, in order."""

    __test__ = False  # not a test case, despite its name
    kind = "ONNX test data"

    @property
    def labels_available(self) -> bool:
        return False

    def _load(self, path: Path) -> tuple[dict[str, Any], Any]:
        files = input_files(path)
        numbers = [_number(file) for file in files]
        if numbers != list(range(len(self.inputs))):
            given = ", ".join(file.name for file in files) or "nothing"
            raise DataError(f"{path}: expected input_0.pb to input_{len(self.inputs) - 1}.pb, got {given}")
        return {spec.name: load_tensor(file) for spec, file in zip(self.inputs, files, strict=True)}, None

    def _sha256(self) -> str:
        return hash_files(file for path in self._used() for file in input_files(path))


def find_test_sets(root: Path) -> list[Path]:
    """The folders with input_N.pb: the folder itself, or its test_data_set_* subfolders."""
    if input_files(root):
        return [root]
    return [d for d in root.iterdir() if d.is_dir() and d.name.startswith(SET_PREFIX)]


def input_files(folder: Path) -> list[Path]:
    """input_0.pb, input_1.pb… of a folder, by number."""
    return sorted((f for f in folder.iterdir() if re.fullmatch(r"input_\d+\.pb", f.name)), key=_number)


def load_tensor(file: Path) -> np.ndarray:
    """The array of a serialized TensorProto. Raises DataError naming the file."""
    import onnx
    from google.protobuf.message import DecodeError

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        if tensor.data_type == onnx.TensorProto.UNDEFINED:
            raise DataError(f"{file}: not a serialized tensor (sequences and optionals are not supported)")
        if onnx.external_data_helper.uses_external_data(tensor):
            raise DataError(f"{file}: its values are in another file, which is not read")
        return onnx.numpy_helper.to_array(tensor)
    except OSError as err:
        raise DataError(f"{file}: cannot be read: {err.strerror}") from None
    except (DecodeError, ValueError, TypeError, KeyError) as err:
        raise DataError(f"{file}: not a serialized tensor: {first_line(err)}") from None


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key for natural order: digits in names compare as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("input_"))
