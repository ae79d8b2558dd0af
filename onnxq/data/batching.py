"""Samples grouped into the feeds of one session run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxq.data.base import DataSource, Sample
from onnxq.data.spec import BatchPlan, InputSpec
from onnxq.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """One feed for a session.

    count: number of real samples; if the model's batch is fixed, the remaining rows repeat the last one. labels:
    int64 of shape (count,), or None. names: one per real sample.
    """

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None
    count: int
    names: tuple[str, ...]


def batches(source: DataSource, inputs: Sequence[InputSpec], batch_size: int | None, start: int = 0) -> Iterator[Batch]:
    """Batches from sample index `start` on.

    * First axes free: up to batch_size single samples (None: 1) are combined; the last batch may be smaller.
      A batched feed, from an iterable or from its own file, is forwarded unchanged.
    * First axes all fixed to k: k samples per feed, regardless of batch_size and of the batching of the data; the last
      feed is padded by repeating its last sample.
    * A batch ends early if samples cannot share it: different sizes of free axes, or a different value of a scalar or
      of an input without a batch axis.

    Raises DataError for bad samples, ConfigError for a batch_size below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"the batch size must be 1 or more, not {batch_size}")
    plan = BatchPlan.of(inputs)
    size = plan.fixed or batch_size or 1
    group: list[Sample] = []
    held = 0
    for sample in source.samples(start):
        joinable = (sample.mergeable or plan.fixed is not None) and sample.rows(plan) == sample.count
        if group and not (joinable and _compatible(group[0], sample, plan)):
            yield _join(group, plan)
            group, held = [], 0
        if not joinable:
            yield _join([sample], plan)
            continue
        low = 0
        while low < sample.count:
            high = min(sample.count, low + size - held)
            group.append(sample.part(low, high, plan))
            held += high - low
            low = high
            if held == size:
                yield _join(group, plan)
                group, held = [], 0
    if group:
        yield _join(group, plan)


def _compatible(first: Sample, other: Sample, plan: BatchPlan) -> bool:
    if (first.labels is None) != (other.labels is None):
        return False
    for name, array in first.feeds.items():
        if name in plan.carriers:
            if array.shape[1:] != other.feeds[name].shape[1:]:
                return False
        elif array is not other.feeds[name] and not np.array_equal(array, other.feeds[name]):
            return False
    return True


def _join(group: list[Sample], plan: BatchPlan) -> Batch:
    first, count = group[0], sum(s.count for s in group)
    feeds = {}
    for name, array in first.feeds.items():
        if name in plan.carriers:
            parts = [s.feeds[name] for s in group]
            rows = sum(len(p) for p in parts)
            if plan.fixed is not None and rows < plan.fixed:
                parts.append(np.repeat(parts[-1][-1:], plan.fixed - rows, axis=0))
            feeds[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        else:
            feeds[name] = array
    labels = None if first.labels is None else np.concatenate([s.labels for s in group if s.labels is not None])
    return Batch(feeds, labels, count, tuple(name for s in group for name in s.names))
