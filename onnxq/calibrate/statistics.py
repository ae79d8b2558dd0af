"""Statistics of activations: mergeable, independent of order and batch size, with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.buckets import NEGATIVE_PAGE, page_starts, value_buckets
from onnxq.calibrate.counting import Counter, make_counter
from onnxq.errors import CalibrationError

# A counter can count fewer than 2^31 values; it is emptied into the pages before that.
SLAB = 1 << 30


class TensorStatistics:
    """Counts of the values of one activation tensor, as float32.

    count: values seen. minimum, maximum: exact; +inf and −inf before the first value. −0 counts as 0.
    zeros: the zero bucket, with ±0 and the denormals (|x| < 2^−126).
    pages: {sign · 256 + biased exponent (1 to 254): int64 counts of the 1024 buckets (10 mantissa bits)}. Only
    pages with a count in them exist: 8 KiB each, at most 508, typically under 50. Treat them as read-only.

    Everything stored is an integer sum or an extremum, so any split into batches or shards, in any order, gives
    equal objects. A bucket is 2^−10 of its power of two wide.
    """

    __slots__ = ("_counter", "_pages", "_waiting", "_zeros", "count", "maximum", "minimum")

    def __init__(
        self,
        count: int = 0,
        zeros: int = 0,
        minimum: float = math.inf,
        maximum: float = -math.inf,
        pages: Mapping[int, NDArray[np.int64]] | None = None,
    ) -> None:
        self.count = count
        self.minimum = minimum
        self.maximum = maximum
        self._zeros = zeros
        self._pages: dict[int, NDArray[np.int64]] = dict(pages or {})
        self._counter: Counter | None = None
        self._waiting = 0  # values in the counter

    @property
    def zeros(self) -> int:
        """Count of the zero bucket."""
        self._flush()
        return self._zeros

    @property
    def pages(self) -> dict[int, NDArray[np.int64]]:
        """The other buckets; see the class."""
        self._flush()
        return self._pages

    def update(self, x: NDArray) -> None:
        """Count the values of x: any shape (zero-size too), any real dtype; float64 and integers round to float32.

        Raises CalibrationError, with nothing counted, if x contains NaN, infinity or values beyond float32, or is not
        numeric. Threads may update different objects concurrently.
        """
        values = _as_float32(x)
        if values.size > SLAB and not (math.isfinite(values.min()) and math.isfinite(values.max())):
            raise CalibrationError(_describe_non_finite(values))
        for start in range(0, values.size, SLAB):
            self._add(values[start : start + SLAB])

    def _add(self, values: NDArray[np.float32]) -> None:
        if self._counter is None:
            self._counter = make_counter()
        if self._waiting + values.size > 2 * SLAB - 1:
            self._flush()
        extremes = self._counter.add(values)
        if extremes is None:
            raise CalibrationError(_describe_non_finite(values))
        low, high = extremes
        self._waiting += values.size
        self.count += values.size
        self.minimum = min(self.minimum, low + 0.0)  # + 0.0 turns −0 into 0: min() may return either
        self.maximum = max(self.maximum, high + 0.0)

    def _flush(self) -> None:
        if self._counter is None or not self._waiting:
            return
        for page, counts in self._counter.drain():
            if page in (0, NEGATIVE_PAGE):
                self._zeros += int(counts.sum())
            else:
                self._add_page(page, counts)
        self._waiting = 0

    def _add_page(self, page: int, counts: NDArray[np.int64]) -> None:
        # Never in place: other statistics may share the array.
        self._pages[page] = self._pages[page] + counts if page in self._pages else counts

    def merge(self, other: TensorStatistics) -> None:
        """Add the counts of `other`; the result exactly equals one run over the values of both."""
        zeros, pages = other.zeros, other.pages  # read first: this drains the counter, and other may be self
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self._zeros += zeros
        for page, counts in pages.items():
            self._add_page(page, counts)

    def positive_part(self) -> TensorStatistics:
        """The statistics of max(x, 0), the range of an unsigned format without a zero point; not for empty ones."""
        pages = {page: counts for page, counts in self.pages.items() if page < NEGATIVE_PAGE}
        zeros = self.count - sum(int(counts.sum()) for counts in pages.values())
        return TensorStatistics(self.count, zeros, max(self.minimum, 0.0), max(self.maximum, 0.0), pages)

    def above(self, bound: float) -> TensorStatistics:
        """The statistics of the values in buckets above a negative bound, which must be a bucket edge."""
        pages: dict[int, NDArray[np.int64]] = {}
        for page, counts in self.pages.items():
            kept = counts
            if page > NEGATIVE_PAGE:
                kept = np.where(-page_starts(page - NEGATIVE_PAGE) > bound, counts, 0)
            if kept.any():
                pages[page] = kept
        count = self.zeros + sum(int(c.sum()) for c in pages.values())
        if not count:
            return TensorStatistics()
        found = TensorStatistics(count, self.zeros, max(self.minimum, bound), self.maximum, pages)
        found.minimum = float(value_buckets(found).low[0])
        return found

    @property
    def sum(self) -> float:
        """Sum of the values, float64, from the bucket centres: within 2^−11 · Σ|x|.

        Not accumulated: floating-point addition depends on the order, and these statistics must not.
        """
        buckets = value_buckets(self)
        return float((buckets.centre * buckets.count).sum())

    @property
    def sum_sq(self) -> float:
        """Sum of the squares, float64, from the bucket centres: relative error about 2^−10."""
        buckets = value_buckets(self)
        return float((buckets.centre**2 * buckets.count).sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorStatistics):
            return NotImplemented
        return (
            (self.count, self.zeros, self.minimum, self.maximum)
            == (other.count, other.zeros, other.minimum, other.maximum)
            and self.pages.keys() == other.pages.keys()
            and all(np.array_equal(counts, other.pages[page]) for page, counts in self.pages.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[TensorStatistics], tuple[Any, ...]]:
        return TensorStatistics, (self.count, self.zeros, self.minimum, self.maximum, self.pages)

    def __repr__(self) -> str:
        return f"TensorStatistics(count={self.count}, minimum={self.minimum:g}, maximum={self.maximum:g})"


class Statistics(Mapping[str, TensorStatistics]):
    """Statistics of a model's activations by tensor name, with their provenance.

    provenance: JSON values. Known keys: "model_sha256" (of the model file), "samples" (number seen), "data" (list of
    descriptions of the data). Merging is independent of order: samples are added, equal values are kept, differing
    values become a sorted list of all.
    """

    def __init__(
        self, tensors: Mapping[str, TensorStatistics] | None = None, provenance: Mapping[str, Any] | None = None
    ) -> None:
        self._tensors = dict(tensors or {})
        self.provenance: dict[str, Any] = dict(provenance or {})

    def __getitem__(self, name: str) -> TensorStatistics:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def tensor(self, name: str) -> TensorStatistics:
        """The statistics of a tensor, created empty if it is new."""
        return self._tensors.setdefault(name, TensorStatistics())

    def merge(self, other: Statistics) -> None:
        """Add another run; tensors seen by only one run are kept. Raises CalibrationError for a different model."""
        self.require_model(other.provenance.get("model_sha256"))
        self.provenance = _merge_provenance(self.provenance, other.provenance)
        for name, tensor in other.items():
            self.tensor(name).merge(tensor)

    def require_model(self, sha256: str | None) -> None:
        """Raise CalibrationError if both hashes are known and these statistics are from another model."""
        mine = self.provenance.get("model_sha256")
        if mine and sha256 and mine != sha256:
            raise CalibrationError(
                f"these statistics were taken from another model (sha256 {mine[:12]}…, expected {sha256[:12]}…): "
                "calibrate this model again"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        return self._tensors == other._tensors and self.provenance == other.provenance

    __hash__ = None  # type: ignore[assignment]


def _as_float32(x: NDArray) -> NDArray[np.float32]:
    x = np.asarray(x)
    if x.dtype == np.float32:  # nothing to check; the checks would take longer than counting a small tensor
        return np.ascontiguousarray(x, np.float32).reshape(-1)
    if not np.can_cast(x.dtype, np.float32, "same_kind"):
        raise CalibrationError(f"values of type {x.dtype} have no range: only real numbers can be calibrated")
    with np.errstate(over="ignore"):  # overflow is reported as infinite
        return np.ascontiguousarray(x, np.float32).reshape(-1)


def _describe_non_finite(values: NDArray[np.float32]) -> str:
    nan = int(np.isnan(values).sum())
    infinite = int(np.isinf(values).sum())
    kinds = [f"{n} {kind}" for n, kind in ((nan, "NaN"), (infinite, "infinite")) if n]
    return f"{' and '.join(kinds)} of {values.size} values: the float model or its input is broken here"


def _merge_provenance(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**a, **b}
    for key in a.keys() & b.keys():
        if key == "samples":
            merged[key] = a[key] + b[key]
        elif a[key] != b[key]:
            both = [*_as_list(a[key]), *_as_list(b[key])]
            merged[key] = sorted({repr(value): value for value in both}.values(), key=repr)
    return merged


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
