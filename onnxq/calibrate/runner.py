"""Run the float model with onnxruntime and count its tensors' values as they are computed, without keeping them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.statistics import Statistics
from onnxq.calibrate.store import load_statistics, save_statistics
from onnxq.data.options import RunOptions
from onnxq.data.source import Batch, DataSource, batches, input_specs
from onnxq.errors import CalibrationError, DataError, InterruptedRun
from onnxq.execution.inner_tensors import Fetcher, real_part, sample_names
from onnxq.execution.known_ops import find_unknown
from onnxq.execution.sessions import observed_session
from onnxq.graph.match import consumers, is_float
from onnxq.graph.model import Model
from onnxq.graph.randomness import draws
from onnxq.graph.unknown_ops import unavailable
from onnxq.patterns.attention import from_integers, masked_tensors
from onnxq.reporting import Progress

# Default number of concurrent batches; each has its own activations.
MAX_WORKERS = 4
SAVE_EVERY = 30.0  # seconds between writes of the resume file
AUTOMATIC = RunOptions()


def collect(
    model: Model,
    tensors: Sequence[str],
    data: DataSource,
    run: RunOptions = AUTOMATIC,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of the named tensors over all samples of `data`.

    tensors: names of graph inputs or activations of the top-level graph. run.batch_size: samples per run (models whose
    batch is fixed keep theirs); None is 1, larger ones only need more memory. run.threads: concurrent batches, 0 for
    one per CPU and at most 4; the result does not depend on it. run.resume: a statistics file that is continued if it
    exists and kept up to date; after Ctrl-C (InterruptedRun) the same call continues from there.
    progress: called with (samples done, total samples or None).
    Raises CalibrationError for NaN or infinity (naming tensor and sample) and for a resume file of different data,
    DataError if the samples do not fit or there are none.
    """
    resume = run.resume
    stats = _resumed(resume, model, tensors, data) or Statistics(
        provenance={"model_sha256": model.sha256, "samples": 0, "data": data.describe()}
    )
    for name in tensors:  # in this order, whichever thread counts first
        stats.tensor(name)
    total = data.count()
    done = int(stats.provenance["samples"])
    if progress:
        progress(done, total)
    inputs = input_specs(model.graph)
    outputs = [name for name in tensors if name not in {spec.name for spec in inputs}]
    workers = run.threads or min(cpus(), MAX_WORKERS)
    if draws(model.graph):
        workers = 1  # the order of the batches determines which random numbers each one gets
    with contextlib.ExitStack() as stack:
        # Threads that process whole batches are better utilized than threads that share operators, and an operator's
        # result can depend on the number of threads that share it (a convolution's last bits do).
        session = stack.enter_context(observed_session(model, outputs, threads=1))
        counter = _BatchCounter(stats, tensors, masked_tensors(model.graph), Fetcher(session, outputs, workers))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        stop = stack.enter_context(interruptible())
        running: deque[Future[int]] = deque()

        def finish(left: int) -> None:
            nonlocal done
            while len(running) > left:
                done += running.popleft().result()
                stats.provenance["samples"] = done
                if progress:
                    progress(done, total)

        saved = time.monotonic()
        for batch in batches(data, inputs, run.batch_size, start=done):
            running.append(pool.submit(counter.count, batch))
            finish(workers)  # this many continue while the next batch is read
            if stop.is_set():
                break
            if resume and time.monotonic() - saved > SAVE_EVERY:
                finish(0)
                save_statistics(stats, resume)
                saved = time.monotonic()
        finish(0)
    if done == 0:
        raise DataError("the calibration data has no samples")
    _check_data(stats, data, resume)  # a function's samples are known by now
    stats.provenance["data"] = data.describe()
    if resume:
        save_statistics(stats, resume)
    if stop.is_set():
        raise InterruptedRun(_interrupted(done, total, resume))
    return stats


def observable(model: Model) -> list[str]:
    """Every float32 activation of the top-level graph that a profile could quantize, inputs first.

    Those that compute positions from integers are excluded, unless something else reads them: T5 takes the logarithm
    of distances, including 0. So is what depends on an operator that onnxruntime does not know.
    """
    find_unknown(model)
    lost = unavailable(model.graph)
    counted = from_integers(model.graph)
    nodes = (
        t
        for n in model.graph.nodes
        for t in n.outputs
        if not t.is_empty()
        and t.name not in lost
        and not (id(n) in counted and all(id(c) in counted for c in consumers(t)))
    )
    return [t.name for t in (*model.graph.inputs, *nodes) if is_float(t)]


class _BatchCounter:
    """Counts the tensors' values batch by batch. Threads may count batches concurrently."""

    def __init__(self, stats: Statistics, tensors: Sequence[str], masked: Set[str], fetch: Fetcher) -> None:
        self._stats = stats
        self._tensors = tensors
        self._masked = masked
        self._fetch = fetch
        self._locks = {name: threading.Lock() for name in tensors}

    def count(self, batch: Batch) -> int:
        """Run a batch, count its tensors and return the number of samples."""
        self._add({name: batch.feeds[name] for name in self._tensors if name in batch.feeds}, batch)
        for found in self._fetch.run(batch):
            self._add(found, batch)
        return batch.count

    def _add(self, found: dict[str, NDArray], batch: Batch) -> None:
        for name in list(found):
            values = real_part(found.pop(name), batch)  # popped: freed as soon as it is counted
            if name in self._masked:
                values = np.maximum(values, np.finfo(values.dtype).min)  # a mask of −infinity; NaN stays NaN
            try:
                with self._locks[name]:
                    self._stats[name].update(values)
            except CalibrationError as err:
                raise CalibrationError(f"tensor {name}, sample {_broken_samples(values, batch)}: {err}") from None


def _broken_samples(values: NDArray, batch: Batch) -> str:
    """Names of the samples that are not finite, or of all if they cannot be distinguished."""
    if values.ndim == 0 or len(values) != batch.count:
        return sample_names(batch.names)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.reshape(batch.count, -1).astype(np.float32))
    return sample_names([batch.names[i] for i in np.flatnonzero(~finite.all(axis=1))])


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _resumed(path: str | Path | None, model: Model, tensors: Sequence[str], data: DataSource) -> Statistics | None:
    if path is None or not Path(path).exists():
        return None
    stats = load_statistics(path, model.sha256)
    if set(stats) != set(tensors):
        raise CalibrationError(f"{path}: was made for different tensors (another profile?); remove it to start over")
    _check_data(stats, data, path)
    return stats


def _check_data(stats: Statistics, data: DataSource, path: str | Path | None) -> None:
    """Raise CalibrationError for data other than in the file. Unknown data (samples from a function) is accepted."""
    kept, given = stats.provenance.get("data"), data.describe()
    if (
        not isinstance(kept, dict)
        or kept.keys() != given.keys()
        or any(kept[k] != given[k] for k in given if kept[k] is not None and given[k] is not None)
    ):
        raise CalibrationError(f"{path}: was made from different data or preprocessing; remove it to start over")


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that a batch is counted whole or not at all; the second stops immediately."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(_signal: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _interrupted(done: int, total: int | None, resume: str | Path | None) -> str:
    of = f" of {total}" if total is not None else ""
    if resume is None:
        return f"interrupted after {done}{of} samples; nothing was saved (use a resume file to continue later)"
    return f"interrupted after {done}{of} samples; saved in {resume}, the same command continues from there"
