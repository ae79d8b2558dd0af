"""Samples from arrays: an .npz file read row by row, or a dict of arrays in memory."""

from __future__ import annotations

import hashlib
import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.lib import format as npy

from onnxq.data.base import LABELS, DataSource, Sample, make_sample
from onnxq.data.images import image_sample
from onnxq.data.preprocess import Preprocess
from onnxq.data.spec import InputSpec, as_array, check_dtype, check_names, first_line, fits, format_shape
from onnxq.errors import DataError, printable

IMAGES = "images"
MAX_ARRAYS = 4096  # in one file
MAX_HEADER = 10_000  # bytes of an .npy header, as in NumPy
MAX_LOADED = 4 << 30  # bytes of one row, or of an array that is needed at once
Mode = Literal["rows", "whole", "shared"]


class Table(Protocol):
    """Named arrays that can be read from any row. where: prefix of error messages."""

    where: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]

    def rows(self, key: str, start: int) -> Iterator[np.ndarray]:
        """Rows start, start + 1, … of one array."""
        ...

    def load(self, key: str) -> np.ndarray:
        """One whole array."""
        ...


class MemoryTable:
    """Arrays in memory."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.where = "data"
        self._arrays = {str(key): as_array(value, f"data: {key!r}") for key, value in arrays.items()}
        self.shapes: dict[str, tuple[int, ...]] = {key: a.shape for key, a in self._arrays.items()}
        self.dtypes: dict[str, np.dtype] = {key: a.dtype for key, a in self._arrays.items()}

    def rows(self, key: str, start: int) -> Iterator[np.ndarray]:
        return (np.asarray(row) for row in self._arrays[key][start:])

    def load(self, key: str) -> np.ndarray:
        return self._arrays[key]


class NpzTable:
    """Arrays of an .npz file. Rows are decompressed on demand, so a large file needs little memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._fortran: set[str] = set()
        with self._guard(), zipfile.ZipFile(path) as file:
            if len(file.infolist()) > MAX_ARRAYS:
                raise DataError(f"{path}: more than {MAX_ARRAYS} arrays")
            for member in file.infolist():
                key = member.filename.removesuffix(".npy")
                with file.open(member) as stream:
                    shape, fortran, dtype = read_header(stream)
                    size = member.file_size - stream.tell()
                if dtype.hasobject:
                    raise DataError(f"{path}: array {key!r} contains Python objects, which are not supported")
                if any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize != size:
                    raise DataError(
                        f"{path}: array {key!r}, {dtype.name} {format_shape(shape)}, cannot be in {size} bytes; the "
                        "file is damaged"
                    )
                self.shapes[key], self.dtypes[key] = shape, dtype
                if fortran and len(shape) > 1:
                    self._fortran.add(key)

    def rows(self, key: str, start: int) -> Iterator[np.ndarray]:
        shape, dtype = self.shapes[key], self.dtypes[key]
        if key in self._fortran:  # its rows are scattered over the whole file
            yield from self.load(key)[start:]
            return
        size = math.prod(shape[1:]) * dtype.itemsize
        self._check_size(key, size)
        with self._guard(), zipfile.ZipFile(self.path) as file, file.open(f"{key}.npy") as stream:
            read_header(stream)
            stream.seek(start * size, 1)
            for _ in range(start, shape[0]):
                raw = stream.read(size)
                if len(raw) != size:
                    raise DataError(f"{self.path}: array {key!r} ends early")
                yield np.frombuffer(raw, dtype).reshape(shape[1:])

    def load(self, key: str) -> np.ndarray:
        self._check_size(key, math.prod(self.shapes[key]) * self.dtypes[key].itemsize)
        with self._guard(), np.load(self.path, allow_pickle=False) as file:
            return np.asarray(file[key])

    def _check_size(self, key: str, size: int) -> None:
        """A compressed file of a few MB can hold an array that no memory can."""
        if size > MAX_LOADED:
            raise DataError(f"{self.path}: array {key!r} needs {size >> 20} MiB at once, at most {MAX_LOADED >> 20}")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise DataError(f"{self.path}: cannot be read: {err.strerror or err}") from None
        except (
            *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, KeyError),
            *(RuntimeError, NotImplementedError, OverflowError),
        ) as err:
            raise DataError(f"{self.path}: not a readable .npz file: {first_line(err)}") from None


class ArraySource(DataSource):
    """Samples from arrays keyed by input name, with optional `labels`.

    Per input, by rank: with the input's rank, axis 0 counts samples; with one more axis, every [i] is a complete feed;
    an array of the exact shape of an input without a batch axis (a scalar, a table) is shared by all samples.
    With a preprocessing spec, uint8 `images` (or the input's own name), N×H×W or N×H×W×channels, become the only input.
    """

    kind = "arrays"

    def __init__(
        self,
        table: Table,
        inputs: Sequence[InputSpec],
        preprocess: Preprocess | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(inputs, limit)
        self._table = table
        self.preprocess = None if preprocess is None else preprocess.for_input(self.inputs)
        names = {spec.name for spec in self.inputs}
        self._labels: np.ndarray | None = None
        keys = [key for key in table.shapes if key in names or key != LABELS]
        self._modes = self._image_mode(keys) if self.preprocess else self._array_modes(keys)
        self._rows = self._count_rows()
        if LABELS in table.shapes and LABELS not in names:
            self._labels = np.atleast_1d(table.load(LABELS))
            if len(self._labels) != self._rows:
                raise DataError(f"{table.where}: {len(self._labels)} labels for {self._rows} samples")
        # samples per row: 1, or the batch size of a complete feed
        self._per_row = next(self._sample_rows(0)).count if self._rows else 1
        if not self._rows:
            raise DataError(f"{table.where}: no samples, the arrays have no rows")

    @property
    def labels_available(self) -> bool:
        return self._labels is not None

    def _total(self) -> int:
        return self._rows * self._per_row

    def _read(self, start: int) -> Iterator[Sample]:
        row, inside = divmod(start, self._per_row) if self._per_row else (0, 0)
        for sample in self._sample_rows(row):
            yield sample.part(inside, sample.count, self.plan) if inside else sample
            inside = 0

    def _sample_rows(self, start: int) -> Iterator[Sample]:
        """One Sample per row of the arrays."""
        fixed = {key: self._table.load(key) for key, mode in self._modes.items() if mode == "shared"}
        streams = {k: self._table.rows(k, start) for k, mode in self._modes.items() if mode != "shared"}
        single = all(self._modes.get(name) == "rows" for name in self.plan.carriers)
        for i in range(start, self._rows):
            where, name = f"{self._table.where}: sample {i}", f"{self._name() or self.kind}[{i}]"
            labels = None if self._labels is None else self._labels[i].reshape(-1)
            values = {key: next(stream) for key, stream in streams.items()}
            if self.preprocess:
                yield self._image(next(iter(values.values())), labels, where, name)
                continue
            feed = {k: v[None] if self._modes[k] == "rows" else v for k, v in values.items()} | fixed
            yield make_sample(feed, labels, self.plan, where, name, mergeable=single)

    def _image(self, array: np.ndarray, labels: np.ndarray | None, where: str, name: str) -> Sample:
        assert self.preprocess is not None
        try:
            tensor = self.preprocess.tensor(self.preprocess.array_pixels(array))
        except DataError as err:
            raise DataError(f"{where}: {err}") from None
        return image_sample(tensor, labels, self.plan, where, name)

    def _image_mode(self, keys: list[str]) -> dict[str, Mode]:
        wanted = self.inputs[0].name
        key = next((k for k in (IMAGES, wanted) if k in keys), None)
        where = self._table.where
        if key is None or len(keys) > 1:
            raise DataError(
                f"{where}: with preprocessing, expected uint8 {IMAGES!r} (and {LABELS!r}), got {_listed(keys)}"
            )
        shape, dtype = self._table.shapes[key], self._table.dtypes[key]
        if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
            raise DataError(
                f"{where}: {key!r} is {dtype.name} {format_shape(shape)}; preprocessing needs uint8 images,"
                " NxHxW or NxHxWxC with 1, 3 or 4 channels"
            )
        return {key: "rows"}

    def _array_modes(self, keys: list[str]) -> dict[str, Mode]:
        where = self._table.where
        if (
            IMAGES in keys
            and all(spec.name != IMAGES for spec in self.inputs)
            and self._table.dtypes[IMAGES] == np.uint8
        ):
            raise DataError(f"{where}: uint8 {IMAGES!r} need a preprocessing spec (--preprocess)")
        check_names(keys, self.inputs, where)
        modes: dict[str, Mode] = {}
        for spec in self.inputs:
            shape = self._table.shapes[spec.name]
            check_dtype(self._table.dtypes[spec.name], spec, where)
            rank = len(shape) if spec.shape is None else len(spec.shape)
            if spec.name not in self.plan.carriers and spec.shape is not None and fits(shape, spec.shape):
                modes[spec.name] = "shared"
            elif len(shape) == rank and rank:
                modes[spec.name] = "rows"
            elif len(shape) == rank + 1:
                modes[spec.name] = "whole"
            else:
                raise DataError(
                    f"{where}: input {spec.name!r} has shape {format_shape(shape)}, expected"
                    f" {format_shape(spec.shape)} with axis 0 counting samples, or one leading axis more"
                )
        return modes

    def _count_rows(self) -> int:
        counts = {key: self._table.shapes[key][0] for key, mode in self._modes.items() if mode != "shared"}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key!r} {n}" for key, n in counts.items())
            raise DataError(f"{self._table.where}: the arrays differ in the number of samples: {listed}")
        return next(iter(counts.values()), 1)

    def _preprocess(self) -> dict[str, Any] | None:
        return self.preprocess.as_dict() if self.preprocess else None

    def _sha256(self) -> str:
        total = self.count() or 0
        used = -(-total // self._per_row) if self._per_row else self._rows
        digest = hashlib.sha256()
        for key in sorted(self._modes):
            shape, shared = self._table.shapes[key], self._modes[key] == "shared"
            kept = shape if shared else (used, *shape[1:])
            digest.update(f"{key} {self._table.dtypes[key].name} {kept}\n".encode())
            if shared:
                digest.update(self._table.load(key).tobytes())
                continue
            for _, row in zip(range(used), self._table.rows(key, 0), strict=False):
                digest.update(row.tobytes())
        return digest.hexdigest()


class NpzFile(ArraySource):
    """ArraySource over one .npz file."""

    kind = "npz"

    def __init__(
        self,
        path: Path,
        inputs: Sequence[InputSpec],
        preprocess: Preprocess | None = None,
        limit: int | None = None,
    ) -> None:
        self.path = path
        super().__init__(NpzTable(path), inputs, preprocess, limit)

    def _name(self) -> str:
        return printable(self.path.name)


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, type) of an .npy stream, which is left at the values.

    Raises ValueError or EOFError for a damaged one.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of .npy version {version[0]}.{version[1]}")
    length = stream.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > MAX_HEADER:
        raise ValueError(f"a header of {int.from_bytes(length, 'little')} bytes")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    try:
        return npy.read_array_header_1_0(header) if version == (1, 0) else npy.read_array_header_2_0(header)
    except EOFError:
        raise
    except Exception as err:  # NumPy parses it as Python: also nested too deep, not tokens, of other types…
        raise ValueError(f"a damaged header: {first_line(err)}") from None


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys)) or "nothing"
