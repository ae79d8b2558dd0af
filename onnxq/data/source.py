"""Opening data: open_data recognizes the kind of data and returns its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxq.data.arrays import ArraySource, MemoryTable, NpzFile
from onnxq.data.base import DataSource, Sample, Shard
from onnxq.data.batching import Batch, batches
from onnxq.data.feeds import NpzFolder, TestDataSets, find_test_sets
from onnxq.data.images import LABELS_FILE, ImageFolder, find_images
from onnxq.data.options import DataOptions, data_options
from onnxq.data.preprocess import PRESETS, Preprocess, load_preprocess
from onnxq.data.python import open_callable, open_object
from onnxq.data.random_data import RandomData
from onnxq.data.spec import InputSpec, apply_shapes, input_specs, parse_shape
from onnxq.errors import ConfigError, DataError

__all__ = ["Batch", "DataSource", "InputSpec", "Sample", "batches", "input_specs", "open_data", "parse_shape", "skip"]


def open_data(
    spec: Any,
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocess | str | Path | None = None,
    limit: int | None = None,
    random: int | None = None,
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> DataSource:
    """A DataSource for a user's data.

    spec: a folder of images (labels.csv or class subfolders), an .npz file, a folder of .npz, a folder of ONNX
    test_data_set_*; "module:callable"; a dict of arrays with a leading sample axis; an iterable of feeds
    {input name: array}, an object with get_next(), a callable returning either; DataOptions, which the other arguments
    refine; or an open DataSource.
    preprocess: preset, TOML file or Preprocess, for images only. limit: use at most the first `limit` samples.
    random: number of random samples, instead of spec. shapes: fixes free axes; data of other shapes is rejected.
    Raises DataError, ConfigError, MissingDependencyError.
    """
    if isinstance(spec, DataOptions):
        given = {"preprocess": preprocess, "limit": limit, "random_data": random, "shapes": shapes}
        options = data_options(spec, {name: value for name, value in given.items() if value is not None})
        return open_data(
            options.data,
            inputs,
            preprocess=options.preprocess,
            limit=options.limit,
            random=options.random_data,
            seed=options.seed,
            shapes=options.shapes,
        )
    if isinstance(spec, DataSource):
        if preprocess is not None or limit is not None or random is not None or shapes:
            raise ConfigError(
                "preprocess, limit, random and shapes do not apply to an open data source; open it with them"
            )
        return spec
    if random is not None:
        if spec is not None:
            raise ConfigError("real data and random data exclude each other; give one")
        return RandomData(inputs, random, seed, shapes, limit)
    if spec is None:
        raise ConfigError("no data: give samples (--data), or try the model with random ones (--random-data N)")
    inputs = _with_shapes(inputs, shapes)
    ready = None if preprocess is None else load_preprocess(preprocess)
    source = _open_path(spec, inputs, ready, limit) if isinstance(spec, (str, Path)) else None
    if source is None:
        if isinstance(spec, Mapping):
            return ArraySource(MemoryTable(spec), inputs, ready, limit)
        source = open_object(spec, inputs, limit)
    if ready is not None and not isinstance(source, (ImageFolder, NpzFile)):
        raise ConfigError(
            f"preprocessing applies to images (a folder, or 'images' in an .npz), not to {source.kind} data"
        )
    return source


def skip(source: DataSource, first: int) -> DataSource:
    """The samples from index `first` on: a shard. A limit given to open_data counts from the start of the data."""
    return Shard(source, first) if first else source


def _open_path(
    spec: str | Path, inputs: Sequence[InputSpec], preprocess: Preprocess | None, limit: int | None
) -> DataSource:
    path = Path(spec)
    try:
        if path.is_dir():
            return _open_folder(path, inputs, preprocess, limit)
        if path.suffix.lower() == ".npz" and path.exists():
            return NpzFile(path, inputs, preprocess, limit)
        exists = path.exists()
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror}") from None
    if exists:
        raise DataError(f"{path}: not data that onnxq reads; give a folder, an .npz file or module:callable")
    if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", str(spec)):
        return open_callable(str(spec), inputs, limit)
    raise DataError(f"{path}: no such file or folder")


def _open_folder(
    path: Path, inputs: Sequence[InputSpec], preprocess: Preprocess | None, limit: int | None
) -> DataSource:
    if sets := find_test_sets(path):
        return TestDataSets(path, sets, inputs, limit)
    npz = [f for f in path.iterdir() if f.suffix.lower() == ".npz" and f.is_file() and not f.name.startswith(".")]
    top, classes = find_images(path)
    if npz and (top or classes):
        raise DataError(f"{path}: contains both .npz files and images; keep one kind per folder")
    if npz:
        return NpzFolder(path, npz, inputs, limit)
    if top or classes or (path / LABELS_FILE).exists():
        if preprocess is None:
            raise ConfigError(
                f"{path}: images need a preprocessing spec (--preprocess): a TOML file, or one of {', '.join(PRESETS)}"
            )
        return ImageFolder(path, inputs, preprocess, limit)
    raise DataError(
        f"{path}: nothing to read in it: no images, no .npz files, no test_data_set_* with input_N.pb"
        if any(path.iterdir())
        else f"{path}: the folder is empty"
    )


def _with_shapes(inputs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]] | None) -> tuple[InputSpec, ...]:
    """Free axes fixed as given, except the first: the data determines the number of samples per feed."""
    fixed = apply_shapes(inputs, shapes or {})
    return tuple(
        InputSpec(new.name, (old.shape[0], *new.shape[1:]) if old.shape and new.shape else new.shape, new.dtype)
        for old, new in zip(inputs, fixed, strict=True)
    )
