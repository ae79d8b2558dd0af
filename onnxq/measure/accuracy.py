"""Accuracy and speed of a model on samples, and its distance from a float model, summed batch by batch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from onnxq.data.source import Batch, InputSpec, batches, input_specs
from onnxq.errors import ConfigError, DataError
from onnxq.execution.inner_tensors import real_part, run_batch
from onnxq.execution.known_ops import lost_tensors
from onnxq.execution.sessions import observed_session
from onnxq.graph.model import Libraries, Model, load
from onnxq.measure.accuracy_tally import AccuracyTally
from onnxq.measure.counterparts import counterpart_of, is_float
from onnxq.measure.evaluation import Evaluation
from onnxq.measure.inputs import different_inputs, open_samples
from onnxq.reporting import Progress


def evaluate(
    model: str | Path | bytes | onnx.ModelProto | Model,
    data: Any,
    *,
    against: str | Path | bytes | onnx.ModelProto | Model | None = None,
    preprocess: Any = None,
    limit: int | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    output: str | None = None,
    custom_ops: Libraries = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Run a model over all samples: accuracy where they are labelled, speed, and the distance from a float model.

    data: an open DataSource, or anything open_data accepts (with preprocess and limit). against: the float model.
    batch_size: samples per run; None is chosen from the model. threads: 0 is onnxruntime's default. output: the tensor
    to evaluate, any in the graph, which must exist in both models (if it is quantized, its dequantized value is
    used); by default the only output with one score for each of two or more classes. custom_ops: libraries of operators
    that the models need; outputs that depend on operators in none of them are not evaluated. progress: called with
    (samples done, total samples or None) after every batch.
    Ties between classes go to the one with the smaller index; a sample whose scores contain NaN counts as wrong.
    Raises ConfigError if the models or the output do not match, DataError for samples that do not fit.
    """
    tested = load(model, custom_ops)
    reference = load(against, custom_ops) if against is not None else None
    inputs = _inputs(tested, reference)
    source = open_samples(data, inputs, preprocess, limit)
    total = source.count()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_opened(tested, _wanted(tested, reference, output), threads))
        other = stack.enter_context(_opened(reference, run.wanted, threads)) if reference is not None else None
        tally = AccuracyTally(tested, output)
        largest = 0
        for batch in batches(source, inputs, batch_size):
            values = run(batch)
            tally.add(batch, values, other(batch) if other is not None else None)
            largest = max(largest, batch.count)
            if progress:
                progress(tally.samples, total)
    if not tally.samples:
        raise DataError("the evaluation data has no samples")
    return tally.evaluation(
        speed=run.rate,
        threads=threads,
        batch_size=largest,
        data=source.describe(),
        against=tally.against(reference, other.rate) if reference is not None and other is not None else None,
    )


class _Run:
    """A model's session, the tensors to fetch, and the time spent in its runs."""

    def __init__(self, model: Model, session: Any, wanted: Sequence[str]) -> None:
        self.model, self.session = model, session
        self.wanted = list(wanted)
        self.fetched = _fetched(model, wanted)
        self.seconds = 0.0
        self.samples = 0

    def __call__(self, batch: Batch) -> dict[str, NDArray]:
        """The requested outputs of the real samples (without padding), by their name in the float model."""
        if not self.samples:
            run_batch(self.session, self.fetched, batch)  # the first run allocates: not timed
        started = time.perf_counter()
        values = run_batch(self.session, self.fetched, batch)
        self.seconds += time.perf_counter() - started
        self.samples += batch.count
        return {name: real_part(v, batch) for name, v in zip(self.wanted, values, strict=True)}

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds if self.seconds else math.inf


@contextlib.contextmanager
def _opened(model: Model, wanted: Sequence[str], threads: int) -> Iterator[_Run]:
    with observed_session(model, _fetched(model, wanted), threads=threads) as session:
        yield _Run(model, session, wanted)


def _fetched(model: Model, wanted: Sequence[str]) -> list[str]:
    """The model's tensors for the requested ones: its outputs unchanged, inner tensors after their Q/DQ."""
    outputs = {t.name for t in model.graph.outputs}
    return [name if name in outputs else counterpart_of(model.graph, name) or name for name in wanted]


def _inputs(model: Model, reference: Model | None) -> tuple[InputSpec, ...]:
    """The inputs to feed: those of the model with more fixed dimensions, such as a fixed batch."""
    own = input_specs(model.graph)
    if reference is None:
        return own
    other = input_specs(reference.graph)
    if {s.name: s.dtype for s in own} != {s.name: s.dtype for s in other}:
        raise different_inputs(model, reference, (own, other))
    fixed = sum(isinstance(d, int) for s in own for d in s.shape or ())
    return own if fixed >= sum(isinstance(d, int) for s in other for d in s.shape or ()) else other


def _wanted(model: Model, reference: Model | None, output: str | None) -> list[str]:
    """The tensors to fetch: the requested one, else every floating-point output."""
    models = [model] + ([reference] if reference is not None else [])
    if output is not None:
        for m in models:
            if output not in {t.name for t in m.graph.outputs} and counterpart_of(m.graph, output) is None:
                names = ", ".join(t.name for t in m.graph.outputs)
                raise ConfigError(f"{m.name} has no tensor {output!r} (--output); its outputs are {names}")
        return [output]
    lost = lost_tensors(*models)
    wanted = [t.name for t in model.graph.outputs if is_float(t) and t.name not in lost]
    for m in models[1:]:
        missing = [n for n in wanted if n not in {t.name for t in m.graph.outputs}]
        if missing:
            raise ConfigError(f"{m.name} has no output {missing[0]}, as {model.name} has; choose one with --output")
    uncomputed = next((t.name for t in model.graph.outputs if t.name in lost), None)
    if not wanted and uncomputed is not None:
        raise ConfigError(f"{model.name}: output {uncomputed} cannot be computed: {lost[uncomputed]}")
    if not wanted:
        raise ConfigError(f"{model.name} has no floating-point output to evaluate; choose a tensor with --output")
    return wanted
