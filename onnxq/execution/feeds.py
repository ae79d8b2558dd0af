"""Inputs for timing: one batch of data or of random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq.data.source import DataSource, InputSpec, batches, input_specs, open_data
from onnxq.data.spec import BatchPlan
from onnxq.errors import ConfigError, DataError
from onnxq.graph.model import Model

Feeds = Mapping[str, NDArray]


def feeds_for(model: Model, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0) -> Feeds:
    """Random numbers for every input, batch 1 if it is open. Raises ConfigError as bench does."""
    return bench_feeds(model, None, None, None, shapes, seed)[0]


def bench_feeds(
    model: Model,
    data: Any,
    preprocess: Any,
    batch_size: int | None,
    shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
) -> tuple[Feeds, int, tuple[str, ...]]:
    """The first batch of the data (random numbers without data), its number of samples, and the assumptions made.

    Raises ConfigError if a dimension is unknown or the batch size does not fit, DataError for unsuitable data.
    """
    specs = input_specs(model.graph)
    plan = BatchPlan.of(specs)
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"the batch size must be 1 or more, not {batch_size}")
    if batch_size is not None and plan.fixed not in (None, batch_size):
        raise ConfigError(
            f"{model.name}: its batch is fixed to {plan.fixed}; it cannot run {batch_size} samples per batch"
        )
    if batch_size is not None and batch_size > 1 and not plan.carriers:
        raise ConfigError(f"{model.name}: none of its inputs has a batch axis; omit the batch size")
    if data is None:
        return _random_feeds(specs, plan, batch_size, shapes, seed)
    size = batch_size or plan.fixed or 1
    source = (
        data
        if isinstance(data, DataSource)
        else open_data(data, specs, preprocess=preprocess, limit=size, shapes=shapes)
    )
    batch = next(batches(source, specs, size), None)
    if batch is None:
        raise DataError("the data has no samples")
    if batch.count < size:
        raise DataError(
            f"the data has {batch.count} sample(s) for a batch of {size}; give more, or a smaller batch size"
        )
    return batch.feeds, batch.count, tuple(source.notes)


def _random_feeds(
    specs: tuple[InputSpec, ...],
    plan: BatchPlan,
    batch_size: int | None,
    shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
) -> tuple[Feeds, int, tuple[str, ...]]:
    given = {name: tuple(dims) for name, dims in (shapes or {}).items()}
    rows = {given[name][0] for name in plan.carriers if given.get(name)}
    if batch_size is not None and rows - {1, batch_size}:
        raise ConfigError(f"the batch size is {batch_size}, but the input shapes have {max(rows)}; give one of the two")
    size = plan.fixed or batch_size or max(rows, default=1)
    single = {
        name: (1, *dims[1:]) if name in plan.carriers and plan.fixed is None and dims else dims
        for name, dims in given.items()
    }
    source = open_data(None, specs, random=size, seed=seed, shapes=single)
    batch = next(batches(source, specs, size))
    return batch.feeds, batch.count, tuple(source.notes)
