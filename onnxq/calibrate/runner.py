"""Run the float model with onnxruntime and count what its tensors hold: as they appear, never kept."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq import runtime
from onnxq.calibrate.statistics import Statistics
from onnxq.calibrate.store import load_statistics, save_statistics
from onnxq.data.source import Batch, DataSource, InputSpec, batches
from onnxq.errors import CalibrationError, DataError, InterruptedRun
from onnxq.fetch import Fetcher, observed_model, real_part, sample_names
from onnxq.match import is_float
from onnxq.model import Model
from onnxq.save import model_dir, runnable

# Fetched tensors of one run together; more are fetched in several runs of the same batch.
FETCH_BUDGET = 256 << 20
PROBE = 16  # tensors fetched at once while sizes are unknown
SAVE_EVERY = 30.0  # seconds between writes of the resume file

Progress = Callable[[int, int | None], None]


def input_specs(model: Model) -> list[InputSpec]:
    """Name, shape and dtype of the model's inputs, as data sources want them."""
    specs = []
    for tensor in model.graph.inputs:
        shape = tuple(tensor.shape) if tensor.shape is not None else ()
        specs.append(InputSpec(tensor.name, shape, np.dtype(tensor.dtype)))
    return specs


def collect(
    model: Model,
    tensors: Sequence[str],
    data: DataSource,
    *,
    batch_size: int | None = None,
    threads: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of the named tensors over all samples of `data`.

    tensors: names of graph inputs or activations of the top-level graph. batch_size: samples a run (models whose
    batch is fixed keep theirs). threads: of onnxruntime, 0 for its default. resume: a statistics file that is
    continued if it exists and kept up to date; after Ctrl-C (InterruptedRun) the same call goes on from there.
    progress: called with (samples done, samples in all or None).
    Raises CalibrationError for NaN or infinity (naming tensor and sample) and for a resume file of other data,
    DataError when the samples do not fit or there are none.
    """
    source = data.describe()
    stats = _resumed(resume, model, tensors, source) or Statistics(
        provenance={"model_sha256": model.sha256, "samples": 0, "data": source}
    )
    for name in tensors:  # in this order, whichever thread counts first
        stats.tensor(name)
    total = data.count()
    done = int(stats.provenance["samples"])
    if progress:
        progress(done, total)
    inputs = input_specs(model)
    outputs = [name for name in tensors if name not in {spec.name for spec in inputs}]
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(runnable(observed_model(model, outputs), model_dir(model)))
        session = runtime.session(opened, threads=threads)
        fetch = Fetcher(session, outputs)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        stop = stack.enter_context(_interruptible())
        saved = time.monotonic()
        for batch in batches(data, inputs, batch_size, start=done):
            _count_batch(stats, tensors, batch, fetch, pool)
            done += batch.count
            stats.provenance["samples"] = done
            if progress:
                progress(done, total)
            if resume and (stop.is_set() or time.monotonic() - saved > SAVE_EVERY):
                save_statistics(stats, resume)
                saved = time.monotonic()
            if stop.is_set():
                raise InterruptedRun(_interrupted(done, total, resume))
    if done == 0:
        raise DataError("the calibration data has no samples")
    if resume:
        save_statistics(stats, resume)
    return stats


def observable(model: Model) -> list[str]:
    """Every float32 activation of the top-level graph, inputs first: what any profile could quantize."""
    nodes = (t for n in model.graph.nodes for t in n.outputs if not t.is_empty())
    return [t.name for t in (*model.graph.inputs, *nodes) if is_float(t)]


def _count_batch(
    stats: Statistics, tensors: Sequence[str], batch: Batch, fetch: Fetcher, pool: ThreadPoolExecutor
) -> None:
    def count(item: tuple[str, NDArray]) -> None:
        name, values = item
        try:
            stats.tensor(name).update(real_part(values, batch))
        except CalibrationError as err:
            raise CalibrationError(f"tensor {name}, sample {sample_names(batch)}: {err}") from None

    fed = [(name, batch.feeds[name]) for name in tensors if name in batch.feeds]
    list(pool.map(count, fed))
    for found in fetch.run(batch):
        list(pool.map(count, found.items()))


def _resumed(
    path: str | Path | None, model: Model, tensors: Sequence[str], source: dict[str, Any]
) -> Statistics | None:
    if path is None or not Path(path).exists():
        return None
    stats = load_statistics(path, model.sha256)
    if set(stats) != set(tensors):
        raise CalibrationError(f"{path}: was made for other tensors (another profile?); remove it to start anew")
    if stats.provenance.get("data") != source:
        raise CalibrationError(f"{path}: was made from other data or preprocessing; remove it to start anew")
    return stats


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that a batch is counted whole or not at all; the second stops at once."""
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
        return f"interrupted after {done}{of} samples; nothing was kept (use a resume file to continue later)"
    return f"interrupted after {done}{of} samples; kept in {resume}, the same command continues from there"
