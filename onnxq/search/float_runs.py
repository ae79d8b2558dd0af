"""The float model on a few samples: its outputs and the inner tensors that parts of it read, within a memory bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.calibrate.runner import AUTOMATIC, cpus
from onnxq.data.options import RunOptions
from onnxq.data.source import Batch, DataSource, batches, input_specs
from onnxq.errors import DataError
from onnxq.execution import runtime
from onnxq.execution.inner_tensors import Fetcher, observed_model, run_batch, sample_names
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model, to_proto
from onnxq.graph.unknown_ops import drop_unknown, unknown_ops
from onnxq.search.downstream import Part
from onnxq.search.objective import Objective

MEMORY = 1 << 30  # bytes of inner tensors kept
MAX_WORKERS = 8
R = TypeVar("R")
Tensors = Mapping[str, NDArray]


class Forward:
    """A float model, its samples, and parts of it by key, in topological order.

    Runs are single-threaded, `run.threads` of them concurrently (0: one per CPU, at most 8), so that results do not
    depend on the number of threads. memory: bytes of inner tensors kept at a time; what does not fit is recomputed.
    """

    def __init__(
        self,
        model: Model,
        parts: Mapping[str, Part],
        data: DataSource,
        run: RunOptions = AUTOMATIC,
        *,
        memory: int = MEMORY,
        wanted: Sequence[str] = (),
    ) -> None:
        self.model, self.parts, self.memory = model, parts, memory
        self.proto = to_proto(model)
        self.batches = list(batches(data, input_specs(model.graph), run.batch_size))
        if not self.batches:
            raise DataError("the data has no samples")
        self.samples = sum(b.count for b in self.batches)
        self.workers = run.threads or min(cpus(), MAX_WORKERS)
        self._pool = ThreadPoolExecutor(self.workers)
        self._kept: tuple[Any, list[dict[str, NDArray]]] = ((), [])
        names = dict.fromkeys(name for part in parts.values() for name in part.fed)
        inputs = {t.name for t in model.graph.inputs}
        self._inner = [n for n in names if n not in inputs]
        self._session = self.open(observed_model(model, [*self._inner, *wanted]))
        fetcher = Fetcher(self._session, [*self._inner, *wanted])
        for _ in fetcher.run(self.batches[0]):
            pass  # the first run allocates, and determines tensor sizes
        self._bytes = fetcher.bytes
        started = time.perf_counter()
        self.run(wanted, self.batches[0])
        self.seconds = (time.perf_counter() - started) / self.batches[0].count  # of one sample

    def keep(self, samples: int) -> None:
        """Keep only the first batches, with at least this many samples."""
        while len(self.batches) > 1 and self.samples - self.batches[-1].count >= samples:
            self.samples -= self.batches.pop().count

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def open(self, proto: onnx.ModelProto) -> Any:
        """A single-threaded session."""
        drop_unknown(proto, unknown_ops(self.model.graph))
        with runnable(proto, model_dir(self.model)) as opened:
            return runtime.session(opened, threads=1, kernels=False, custom_ops=self.model.custom_ops)

    def map(self, function: Callable[[int], R], indices: Iterable[int]) -> list[R]:
        """The function applied to every batch index, in order, several concurrently."""
        return list(self._pool.map(function, indices))

    def run(self, names: Sequence[str], batch: Batch) -> list[NDArray]:
        """Tensors of the float model."""
        return run_batch(self._session, names, batch)

    def reference(self, objective: Objective) -> list[list[NDArray]]:
        """The float model's outputs of every batch, as objective.rows gives them. DataError if they are not finite."""
        wanted = list(objective.tensors)

        def rows(index: int) -> list[NDArray]:
            batch = self.batches[index]
            found = objective.rows(self.run(wanted, batch), batch)
            if not all(np.isfinite(v).all() for v in found):
                raise DataError(f"sample {sample_names(batch.names)}: the model's outputs are not finite")
            return found

        return self.map(rows, range(len(self.batches)))

    def visits(self, keys: Sequence[str]) -> Iterator[tuple[str, Sequence[Sequence[int]], tuple[str, ...]]]:
        """Each part's (key, chunks of batch indices, names to keep for all of its neighbours).

        Neighbours share one forward pass if everything they read in all batches fits; a part that does not fit alone
        processes the batches in several chunks.
        """
        everything = range(len(self.batches))
        group: list[str] = []
        names: dict[str, None] = {}
        for key in keys:
            more = names | dict.fromkeys(self.parts[key].fed)
            if group and self._size(more) * self.samples > self.memory:
                yield from ((k, [everything], tuple(names)) for k in group)
                group, more = [], dict.fromkeys(self.parts[key].fed)
            group, names = [*group, key], more
            if self._size(names) * self.samples > self.memory:
                yield key, list(self._chunks(names)), tuple(names)
                group, names = [], {}
        yield from ((k, [everything], tuple(names)) for k in group)

    def tensors(self, names: tuple[str, ...], chunk: Sequence[int]) -> list[dict[str, NDArray]]:
        """These tensors of some batches, in order; the last result is cached."""
        key = (names, tuple(chunk))
        if self._kept[0] != key:
            self._kept = ((), [])
            self._kept = (key, self.map(lambda b: self._fetch(names, self.batches[b]), chunk))
        return self._kept[1]

    def _fetch(self, names: Sequence[str], batch: Batch) -> dict[str, NDArray]:
        inner = [n for n in names if n not in batch.feeds]
        found = dict(zip(inner, self.run(inner, batch), strict=True)) if inner else {}
        return found | {n: batch.feeds[n] for n in names if n in batch.feeds}

    def _size(self, names: Iterable[str]) -> float:
        """Bytes per sample; model inputs do not count, since the samples are kept anyway."""
        return sum(self._bytes.get(n, 0.0) for n in names)

    def _chunks(self, names: Iterable[str]) -> Iterator[Sequence[int]]:
        room = self.memory / max(self._size(names), 1.0)
        chunk: list[int] = []
        held = 0
        for i, batch in enumerate(self.batches):
            if chunk and held + batch.count > room:
                yield chunk
                chunk, held = [], 0
            chunk.append(i)
            held += batch.count
        yield chunk


def run_part(session: Any, part: Part, tensors: Tensors, more: Tensors) -> dict[str, NDArray]:
    """The requested outputs of a part, by their names in the model. Raises DataError if it cannot be run."""
    feeds = {name: tensors[name] for name in part.fed} | dict(more)
    try:
        values = session.run(list(part.outputs.values()), feeds)
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        raise DataError(f"onnxruntime cannot run a part of the model: {str(err).splitlines()[0][:300]}") from err
    return dict(zip(part.outputs, values, strict=True))
