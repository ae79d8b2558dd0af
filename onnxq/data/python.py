"""Samples from Python: iterables of feeds, objects with get_next(), and callables that return either."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxq.data.base import LABELS, DataSource, Sample, hash_feeds, make_sample, skip_samples, split_labels
from onnxq.data.spec import BatchPlan, InputSpec, first_line
from onnxq.errors import DataError, OnnxqError

CACHE_BYTES = 256 << 20  # of a one-shot iterator's feeds cached for another pass


class PythonSource(DataSource):
    """Feeds {input name: array}, with optional `labels`, from Python; each is forwarded unchanged.

    A repeatable source (a list, a callable, an object with rewind()) is read again in every pass and must yield the
    same number of samples. A one-shot source (a generator, a reader without rewind) is read once, as far as needed, and
    cached for later passes up to CACHE_BYTES; beyond that it streams in bounded memory, and a second pass raises
    DataError.
    """

    kind = "iterable"

    def __init__(
        self,
        feeds: Callable[[], Iterator[Sample]],
        name: str | None,
        inputs: Sequence[InputSpec],
        limit: int | None,
        total: int | None,
    ) -> None:
        super().__init__(inputs, limit)
        self._feeds = feeds
        self._origin = name
        self._known = total
        self._labelled: bool | None = None

    @property
    def labels_available(self) -> bool:
        if self._labelled is None:
            for _ in self.samples():
                break
        return bool(self._labelled)

    def samples(self, start: int = 0) -> Iterator[Sample]:
        return skip_samples(self._pass(), start, self.plan)

    def _pass(self) -> Iterator[Sample]:
        """All samples; the first complete pass determines their number and hash."""
        digest = hashlib.sha256() if self._digest is None else None
        total = 0
        for sample in self._limited(self._feeds()):
            labelled = sample.labels is not None
            if self._labelled not in (None, labelled):
                raise DataError(f"{sample.names[0]}: labels are given for some samples only")
            self._labelled = labelled
            total += sample.count
            if digest:
                hash_feeds(digest, sample.feeds)
            yield sample
        if not total:
            raise DataError(f"{self._origin or 'the data'}: yielded no samples")
        if self.count() not in (None, total):
            raise DataError(
                f"{self._origin or 'the data'}: yielded {total} samples, expected {self.count()};"
                " every pass must yield the same number"
            )
        self._known = total
        if digest:
            self._digest = digest.hexdigest()

    def _total(self) -> int | None:
        return self._known

    def _read(self, start: int) -> Iterator[Sample]:
        return self.samples(start)

    def _name(self) -> str | None:
        return self._origin

    def _sha256(self) -> str | None:
        # Only lists are read just for the hash; other sources may be slow, so theirs is computed during a pass.
        if self._known is not None:
            for _ in self._pass():
                pass
        return self._digest


class CallableSource(PythonSource):
    """PythonSource over "module:callable"."""

    kind = "python"


def open_object(value: Any, inputs: Sequence[InputSpec], limit: int | None = None) -> PythonSource:
    """A source over an iterable of feeds, an object with get_next(), or a callable without arguments."""
    name = getattr(value, "__name__", None) or type(value).__name__
    total = _announced(value, BatchPlan.of(inputs)) if isinstance(value, (list, tuple)) else None
    return PythonSource(_reader(value, name, inputs), name, inputs, limit, total)


def open_callable(text: str, inputs: Sequence[InputSpec], limit: int | None = None) -> CallableSource:
    """A source over "module:callable"; the module may be in the current folder. Raises DataError."""
    return CallableSource(_calling(_import(text), text, inputs), text, inputs, limit, None)


def _reader(value: Any, name: str, inputs: Sequence[InputSpec]) -> Callable[[], Iterator[Sample]]:
    """A function that starts a pass."""
    if callable(getattr(value, "rewind", None)) and hasattr(value, "get_next") and not isinstance(value, type):
        rewound = _Rewound(value, name)
        return lambda: _samples(rewound.start(), name, inputs)
    if isinstance(value, type) or (
        callable(value) and not hasattr(value, "get_next") and not hasattr(value, "__iter__")
    ):
        return _calling(value, name, inputs)
    if hasattr(value, "get_next") or _iterator(value, name) is value:
        return _Once(_samples(_feeds(value, name), name, inputs), name)
    return lambda: _samples(_feeds(value, name), name, inputs)


def _calling(function: Callable[[], Any], name: str, inputs: Sequence[InputSpec]) -> Callable[[], Iterator[Sample]]:
    return lambda: _samples(_feeds(_call(function, name), name), name, inputs)


def _samples(feeds: Iterator[Any], name: str, inputs: Sequence[InputSpec]) -> Iterator[Sample]:
    plan = BatchPlan.of(inputs)
    for i, feed in enumerate(feeds):
        where = f"{name}: sample {i}"
        if not isinstance(feed, Mapping):
            raise DataError(f"{where} is a {type(feed).__name__}, expected a dict {{input name: array}}")
        arrays, labels = split_labels(feed, inputs)
        yield make_sample(arrays, labels, plan, where, f"sample {i}")


def _feeds(value: Any, name: str) -> Iterator[Any]:
    """Feeds of a reader or an iterable; an exception in the user's code becomes the cause of a DataError."""
    feeds = _until_none(value) if hasattr(value, "get_next") else _iterator(value, name)
    try:
        yield from feeds
    except OnnxqError:
        raise
    except Exception as err:
        raise DataError(f"{name}: failed while yielding samples: {type(err).__name__}: {first_line(err)}") from err


def _iterator(value: Any, name: str) -> Iterator[Any]:
    try:
        return iter(value)
    except Exception as err:
        raise DataError(
            f"{name}: cannot be read as data ({first_line(err)}); expected an iterable of dicts {{input name: array}}"
        ) from err


def _call(function: Callable[[], Any], name: str) -> Any:
    with _current_folder_importable():
        try:
            return function()
        except OnnxqError:
            raise
        except Exception as err:
            raise DataError(f"{name}: failed: {type(err).__name__}: {first_line(err)}") from err


class _Rewound:
    """Passes over a reader with rewind(); an overlapping pass is an error instead of a silent loss of samples."""

    def __init__(self, reader: Any, name: str) -> None:
        self._reader, self._name, self._passes = reader, name, 0

    def start(self) -> Iterator[Any]:
        self._passes += 1
        mine = self._passes
        if mine > 1:
            _call(self._reader.rewind, f"{self._name}.rewind()")
        for feed in _feeds(self._reader, self._name):
            yield feed
            if mine != self._passes:
                raise DataError(f"{self._name}: was rewound while it was being read")


class _Once:
    """Passes over a one-shot iterator, whose samples are cached as long as they fit in CACHE_BYTES."""

    def __init__(self, samples: Iterator[Sample], name: str) -> None:
        self._samples, self._name = samples, name
        self._kept: list[Sample] | None = []
        self._taken = 0
        self._bytes = 0
        self._failure: OnnxqError | None = None

    def __call__(self) -> Iterator[Sample]:
        at = 0
        while True:
            if self._kept is not None and at < len(self._kept):
                sample = self._kept[at]
            elif at < self._taken:
                raise DataError(
                    f"{self._name}: can be read only once and is too large to keep ({CACHE_BYTES >> 20} MiB); give a"
                    " list, a folder, or a function that returns a new iterator"
                )
            else:
                taken = self._take()
                if taken is None:
                    return
                sample = taken
            at += 1
            yield sample

    def _take(self) -> Sample | None:
        if self._failure is not None:  # a generator that raised looks exhausted afterwards
            raise self._failure
        try:
            sample = next(self._samples, None)
        except OnnxqError as err:
            self._failure = err
            raise
        if sample is None:
            return None
        self._taken += 1
        self._bytes += sum(a.nbytes for a in sample.feeds.values())
        if self._bytes > CACHE_BYTES:
            self._kept = None
        elif self._kept is not None:
            self._kept.append(sample)
        return sample


def _until_none(reader: Any) -> Iterator[Any]:
    while (feed := reader.get_next()) is not None:
        yield feed


def _announced(feeds: Sequence[Any], plan: BatchPlan) -> int | None:
    """Number of samples in a list of feeds, from their shapes; None if the shapes are insufficient."""
    total = 0
    for feed in feeds:
        if not isinstance(feed, Mapping) or LABELS in feed:
            return None
        shapes = [getattr(feed.get(name), "shape", None) for name in plan.carriers]
        lengths = {int(shape[0]) for shape in shapes if shape}
        if not all(shapes) or len(lengths) > 1:
            return None
        total += lengths.pop() if lengths else 1
    return total


def _import(text: str) -> Callable[[], Any]:
    module_name, _, attribute = text.partition(":")
    with _current_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as err:
            hint = f"; write {module_name.removesuffix('.py')}:{attribute}" if module_name.endswith(".py") else ""
            raise DataError(f"{text}: cannot import {module_name}: {first_line(err)}{hint}") from err
        except Exception as err:
            raise DataError(f"{text}: importing {module_name} failed: {type(err).__name__}: {first_line(err)}") from err
    function = getattr(module, attribute, None)
    if function is None:
        raise DataError(f"{text}: module {module_name} has no {attribute!r}")
    if not callable(function):
        raise DataError(f"{text}: {attribute} is a {type(function).__name__}, not a callable")
    return function


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """The current folder first on sys.path, as when Python runs a script from it."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
