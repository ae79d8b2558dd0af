"""The interface of sources of samples, and the sample type."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxq.data.spec import BatchPlan, InputSpec, as_labels, check_shape, conform
from onnxq.errors import ConfigError, DataError

HASH_BLOCK = 1 << 20
LABELS = "labels"


@dataclass(frozen=True)
class Sample:
    """One sample, or one batched feed. Arrays have the rank and dtype of the model's inputs.

    count: number of samples, the length of axis 0 if that counts samples. names: one per sample, for messages.
    labels: int64 of shape (count,). mergeable: a single sample that may share a batch with others.
    """

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None
    names: tuple[str, ...]
    count: int
    mergeable: bool

    def rows(self, plan: BatchPlan) -> int | None:
        """The length of axis 0 if it counts samples, else None (see BatchPlan.rows)."""
        return plan.rows({name: array.shape for name, array in self.feeds.items()})

    def part(self, low: int, high: int, plan: BatchPlan) -> Sample:
        """Samples low to high (exclusive) of a batched feed; requires rows(plan) == count."""
        if (low, high) == (0, self.count):
            return self
        feeds = {name: a[low:high] if name in plan.carriers else a for name, a in self.feeds.items()}
        labels = None if self.labels is None else self.labels[low:high]
        return Sample(feeds, labels, self.names[low:high], high - low, self.mergeable)


class DataSource(ABC):
    """Samples for calibration and evaluation: read lazily, in a fixed order, any number of times.

    kind: of the source, for the card. notes: sentences for the user (assumptions made).
    """

    kind: str

    def __init__(self, inputs: Sequence[InputSpec], limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"the number of samples to use must be 1 or more, not {limit}")
        self.inputs = tuple(inputs)
        self.plan = BatchPlan.of(inputs)
        self.limit = limit
        self.notes: tuple[str, ...] = ()
        self._digest: str | None = None

    def count(self) -> int | None:
        """Number of samples, None while unknown."""
        total = self._total()
        return total if total is None or self.limit is None else min(total, self.limit)

    def samples(self, start: int = 0) -> Iterator[Sample]:
        """Samples from index `start` on; a batched feed is split there. Raises DataError."""
        return self._limited(self._read(start), start)

    def describe(self) -> dict[str, Any]:
        """For the quantization card, JSON types only: kind, name, samples, labelled, sha256, preprocess.

        name: the last component of the location, never a path. sha256: of the content in order, without labels:
        for folders (images, .npz, .pb) of the concatenated files; otherwise of names, types, shapes and bytes of the
        arrays; None when the data cannot be read again.
        """
        if self._digest is None:
            self._digest = self._sha256()
        return {
            "kind": self.kind,
            "name": self._name(),
            "samples": self.count(),
            "labelled": self.labels_available,
            "sha256": self._digest,
            "preprocess": self._preprocess(),
        }

    @property
    @abstractmethod
    def labels_available(self) -> bool:
        """Whether samples have labels."""

    @abstractmethod
    def _total(self) -> int | None:
        """Number of samples without the limit, None while unknown."""

    @abstractmethod
    def _read(self, start: int) -> Iterator[Sample]:
        """Samples from index `start` on, without the limit."""

    def _name(self) -> str | None:
        return None

    def _preprocess(self) -> dict[str, Any] | None:
        return None

    def _sha256(self) -> str | None:
        digest = hashlib.sha256()
        for sample in self.samples():
            hash_feeds(digest, sample.feeds)
        return digest.hexdigest()

    def _limited(self, samples: Iterator[Sample], start: int = 0) -> Iterator[Sample]:
        if self.limit is None:
            yield from samples
            return
        left = self.limit - start
        while left > 0 and (sample := next(samples, None)) is not None:
            if sample.count > left:
                sample = sample.part(0, left, self.plan)
            left -= sample.count
            yield sample


class Shard(DataSource):
    """The samples of another source from index `first` on. Its sha256 is that of the whole other source."""

    def __init__(self, source: DataSource, first: int) -> None:
        super().__init__(source.inputs)
        if first < 0:
            raise ConfigError(f"the first sample must be number 0 or more, not {first}")
        self.kind = source.kind
        self.notes = source.notes
        self._source = source
        self._first = first
        total = source.count()
        if total is not None and first >= total:
            raise DataError(f"there is no sample {first}: the data has {total}")

    @property
    def labels_available(self) -> bool:
        return self._source.labels_available

    def describe(self) -> dict[str, Any]:
        return self._source.describe() | {"first": self._first, "samples": self.count()}

    def _total(self) -> int | None:
        total = self._source.count()
        return None if total is None else total - self._first

    def _read(self, start: int) -> Iterator[Sample]:
        return self._source.samples(self._first + start)


def make_sample(
    feeds: Mapping[str, Any],
    labels: Any,
    plan: BatchPlan,
    where: str,
    name: str,
    *,
    mergeable: bool = False,
) -> Sample:
    """A checked Sample from a feed. where: prefix of error messages. name: of the sample; a batched one appends [row].

    Axis 0 may differ from a fixed batch (the feed is regrouped) unless a single label marks the feed as one sample.
    Raises DataError.
    """
    arrays = conform(feeds, plan.inputs, where, plan.carriers if plan.fixed else ())
    rows = plan.rows({key: array.shape for key, array in arrays.items()})
    found = None if labels is None else as_labels(labels, where)
    count = count_samples(rows, None if found is None else found.size)
    if found is not None and found.size != count:
        raise DataError(f"{where}: {found.size} labels for {count} samples")
    if count != rows:
        for spec in plan.inputs:
            check_shape(arrays[spec.name].shape, spec, where)
    names = (name,) if count == 1 else tuple(f"{name}[{i}]" for i in range(count))
    return Sample(arrays, found, names, count, mergeable and count == 1)


def count_samples(rows: int | None, labels: int | None) -> int:
    """Samples in a feed: 1 if axis 0 does not count them (rows None) or if one label covers all of it."""
    return 1 if rows is None or labels == 1 else rows


def skip_samples(samples: Iterable[Sample], start: int, plan: BatchPlan) -> Iterator[Sample]:
    """Samples from index `start` on; the feed that contains it is split."""
    for sample in samples:
        if start >= sample.count > 0 or (start > 0 and sample.count == 0):
            start -= sample.count
        else:
            yield sample.part(start, sample.count, plan)
            start = 0


def split_labels(feed: Mapping[str, Any], inputs: Sequence[InputSpec]) -> tuple[dict[str, Any], Any]:
    """A feed without its `labels`, and the labels; `labels` is kept if the model has an input of that name."""
    if LABELS not in feed or any(spec.name == LABELS for spec in inputs):
        return dict(feed), None
    return {name: value for name, value in feed.items() if name != LABELS}, feed[LABELS]


def hash_feeds(digest: Any, feeds: Mapping[str, np.ndarray]) -> None:
    """Add name, type, shape and bytes of every array to a hash."""
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        # text tensors are arrays of objects, whose bytes are addresses
        digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())


def hash_files(files: Iterable[Path]) -> str:
    """SHA-256 of the concatenated files, as `cat files | sha256sum` prints it. Raises DataError."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(HASH_BLOCK):
                    digest.update(block)
        except OSError as err:
            raise DataError(f"{file}: cannot be read: {err.strerror}") from None
    return digest.hexdigest()
