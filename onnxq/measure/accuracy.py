"""Accuracy and speed of a model on samples, and how far it is from a float model: outputs are summed batch by batch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch, DataSource, InputSpec, batches, input_specs, open_data
from onnxq.errors import ConfigError, DataError
from onnxq.execution import runtime
from onnxq.execution.inner_tensors import observed_model, real_part, run_batch
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model, load
from onnxq.measure.counterparts import twin_of
from onnxq.numeric.classification import Scores, is_probability, kl_divergence, top_classes, true_ranks
from onnxq.numeric.metrics import ErrorSums

TOP = 5
NO_SIGNAL_DB = -300.0
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class OutputDistance:
    """Distance of one output from the float model's: SQNR in dB, cosine, largest absolute error.

    sqnr_db: None when equal; NO_SIGNAL_DB where there is no ratio (an output holds NaN, or the float one is all zeros).
    """

    sqnr_db: float | None
    cosine: float
    max_abs_error: float


@dataclass(frozen=True)
class Against:
    """The float model on the same samples, and how the model differs from it.

    top1, top5: the float model's, None without labels. agreement: share of samples with the same top class.
    kl: mean over samples of KL(float ‖ model) of the class probabilities, in nats. lost, gained: samples that only the
    float model, or only the quantized one, classifies right. outputs: error of every compared output.
    agreement, kl, lost and gained are None for a model without a classification output (the last two without labels).
    """

    model: str
    model_sha256: str
    top1: float | None
    top5: float | None
    agreement: float | None
    kl: float | None
    lost: int | None
    gained: int | None
    outputs: dict[str, OutputDistance]
    samples_per_second: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Shares are between 0 and 1.

    output: the classification output; None if there is none. labelled: samples with a label. top1_error, top5_error:
    standard errors of the shares, sqrt(p (1 − p) / labelled). ms_per_sample, samples_per_second: of the session's runs
    alone, after one run to warm up. threads: as asked for, 0 is onnxruntime's default. data: the source, for the card.
    """

    model: str
    model_sha256: str
    samples: int
    labelled: int
    output: str | None
    top1: float | None
    top1_error: float | None
    top5: float | None
    top5_error: float | None
    ms_per_sample: float
    samples_per_second: float
    threads: int
    batch_size: int
    against: Against | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; numbers that JSON has no word for (infinite, not a number) are None."""
        return plain(asdict(self))


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
    progress: Progress | None = None,
) -> Evaluation:
    """Run a model over all samples: accuracy where they are labelled, speed, and the distance from a float model.

    data: an open DataSource, or whatever open_data takes (with preprocess and limit). against: the float model.
    output: the tensor to look at, any of the graph, which must exist in both models (where Q/DQ stands on it, the
    dequantized one is taken); by default the only output that has one score for each of two or more classes.
    Ties between classes go to the one with the smaller index; a sample whose scores hold NaN counts as wrong.
    Raises ConfigError when the models or the output do not fit together, DataError for samples that do not.
    """
    tested = load(model)
    reference = load(against) if against is not None else None
    inputs = _inputs(tested, reference)
    source = data if isinstance(data, DataSource) else open_data(data, inputs, preprocess=preprocess, limit=limit)
    total = source.count()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_opened(tested, _wanted(tested, reference, output), threads))
        other = stack.enter_context(_opened(reference, run.wanted, threads)) if reference is not None else None
        tally = _Tally(tested, output, other is not None)
        largest = 0
        for batch in batches(source, inputs, batch_size):
            values = run(batch)
            tally.add(batch, values, other(batch) if other is not None else None)
            largest = max(largest, batch.count)
            if progress:
                progress(tally.samples, total)
    if not tally.samples:
        raise DataError("the evaluation data has no samples")
    return tally.evaluation(run, other, threads, largest, source.describe())


class _Run:
    """One model's session, the outputs wanted of it, and the time its runs took."""

    def __init__(self, model: Model, session: Any, wanted: Sequence[str]) -> None:
        self.model, self.session = model, session
        self.wanted = list(wanted)
        self.fetched = _fetched(model, wanted)
        self.seconds = 0.0
        self.samples = 0

    def __call__(self, batch: Batch) -> dict[str, NDArray]:
        """The wanted outputs of the real samples, by their name in the float model."""
        if not self.samples:
            run_batch(self.session, self.fetched, batch)  # the first run allocates: not timed
        started = time.perf_counter()
        values = run_batch(self.session, self.fetched, batch)
        self.seconds += time.perf_counter() - started
        self.samples += batch.count
        return {name: real_part(v, batch) for name, v in zip(self.wanted, values, strict=True)}

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds if self.seconds else math.inf


@contextlib.contextmanager
def _opened(model: Model, wanted: Sequence[str], threads: int) -> Iterator[_Run]:
    with runnable(observed_model(model, _fetched(model, wanted)), model_dir(model)) as opened:
        yield _Run(model, runtime.session(opened, threads=threads), wanted)


def _fetched(model: Model, wanted: Sequence[str]) -> list[str]:
    """The model's tensors for the wanted ones: its outputs as they are, inner tensors behind their Q/DQ."""
    outputs = {t.name for t in model.graph.outputs}
    return [name if name in outputs else twin_of(model.graph, name) or name for name in wanted]


def _inputs(model: Model, reference: Model | None) -> tuple[InputSpec, ...]:
    """The inputs to feed: of the two models' the narrower, whose batch is fixed."""
    own = input_specs(model.graph)
    if reference is None:
        return own
    other = input_specs(reference.graph)
    if {s.name: s.dtype for s in own} != {s.name: s.dtype for s in other}:
        told = " and ".join(", ".join(f"{s.name}: {s}" for s in specs) for specs in (own, other))
        raise ConfigError(f"{model.name} and {reference.name} do not take the same inputs ({told})")
    fixed = sum(isinstance(d, int) for s in own for d in s.shape or ())
    return own if fixed >= sum(isinstance(d, int) for s in other for d in s.shape or ()) else other


def _wanted(model: Model, reference: Model | None, output: str | None) -> list[str]:
    """The tensors to fetch: the one asked for, else every floating-point output."""
    models = [model] + ([reference] if reference is not None else [])
    if output is not None:
        for m in models:
            if output not in {t.name for t in m.graph.outputs} and twin_of(m.graph, output) is None:
                names = ", ".join(t.name for t in m.graph.outputs)
                raise ConfigError(f"{m.name} has no tensor {output!r} (--output); its outputs are {names}")
        return [output]
    wanted = [t.name for t in model.graph.outputs if _floating(t)]
    for m in models[1:]:
        missing = [n for n in wanted if n not in {t.name for t in m.graph.outputs}]
        if missing:
            raise ConfigError(f"output {missing[0]} of {model.name} is no output of {m.name}; choose one with --output")
    if not wanted:
        raise ConfigError(f"{model.name} has no floating-point output to evaluate; choose a tensor with --output")
    return wanted


def _floating(tensor: gs.Tensor) -> bool:
    if tensor.dtype is None:
        return True
    return not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype).kind == "f"


class _Tally:
    """Sums over batches, from which the shares follow."""

    def __init__(self, model: Model, output: str | None, compared: bool) -> None:
        self.model, self.asked = model, output
        self.scores: Scores | None = None
        self.samples = self.labelled = 0
        self.hits = np.zeros(2, np.int64)  # top-1, top-5
        self.float_hits = np.zeros(2, np.int64)
        self.agree = self.lost = self.gained = 0
        self.kl = 0.0
        self.probability: bool | None = None
        self.compared = compared
        self.errors: dict[str, ErrorSums] = {}

    def add(self, batch: Batch, values: dict[str, NDArray], reference: dict[str, NDArray] | None) -> None:
        if not self.samples:
            self.scores = Scores.choose({n: v.shape for n, v in values.items()}, batch.count)
            if self.scores is None and (self.asked or batch.labels is not None):
                self._refuse(values, batch)
        self.samples += batch.count
        if reference is not None:
            for name, value in values.items():
                if value.shape != reference[name].shape:
                    raise ConfigError(f"output {name} is {list(value.shape)} here, {list(reference[name].shape)} there")
                self.errors.setdefault(name, ErrorSums()).add(reference[name], value)
        if self.scores is not None:
            self._classify(batch, values[self.scores.output], reference)

    def _refuse(self, values: dict[str, NDArray], batch: Batch) -> None:
        if batch.labels is None:
            return  # a tensor that holds no class scores can still be compared
        shapes = ", ".join(f"{n} {list(v.shape)}" for n, v in values.items())
        raise ConfigError(
            f"{self.model.name}: no single output has one score for each class ({shapes}); choose one with --output, "
            "or leave the labels out"
        )

    def _classify(self, batch: Batch, raw: NDArray, reference: dict[str, NDArray] | None) -> None:
        assert self.scores is not None
        scores = self.scores.rows(raw, batch.count)
        other = self.scores.rows(reference[self.scores.output], batch.count) if reference is not None else None
        if batch.labels is not None:
            ranks = self._ranks(scores, batch)
            self.labelled += batch.count
            self.hits += [(ranks < 1).sum(), (ranks < TOP).sum()]
            if other is not None:
                float_ranks = self._ranks(other, batch)
                self.float_hits += [(float_ranks < 1).sum(), (float_ranks < TOP).sum()]
                self.lost += int(((float_ranks < 1) & (ranks >= 1)).sum())
                self.gained += int(((float_ranks >= 1) & (ranks < 1)).sum())
        if other is not None:
            self.agree += int((top_classes(scores) == top_classes(other)).sum())
            if self.probability is None:
                self.probability = is_probability(other)
            self.kl += float(kl_divergence(other, scores, self.probability).sum())

    def _ranks(self, scores: NDArray, batch: Batch) -> NDArray:
        assert batch.labels is not None
        for label, name in zip(batch.labels, batch.names, strict=True):
            if not 0 <= label < scores.shape[1]:
                raise DataError(f"sample {name}: label {label}, but the model has {scores.shape[1]} classes from 0 on")
        return true_ranks(scores, batch.labels)

    def evaluation(
        self, run: _Run, other: _Run | None, threads: int, batch_size: int, data: dict[str, Any]
    ) -> Evaluation:
        n = self.labelled
        wide = self.scores is not None and self.scores.classes > TOP
        top1, top5 = self._shares(self.hits, wide)
        return Evaluation(
            model=self.model.name,
            model_sha256=self.model.sha256,
            samples=self.samples,
            labelled=n,
            output=self.scores.output if self.scores is not None else None,
            top1=top1,
            top1_error=_standard_error(top1, n),
            top5=top5,
            top5_error=_standard_error(top5, n),
            ms_per_sample=1000.0 / run.rate,
            samples_per_second=run.rate,
            threads=threads,
            batch_size=batch_size,
            against=self._against(other, wide) if other is not None else None,
            data=data,
        )

    def _against(self, other: _Run, wide: bool) -> Against:
        top1, top5 = self._shares(self.float_hits, wide)
        classified = self.scores is not None
        return Against(
            model=other.model.name,
            model_sha256=other.model.sha256,
            top1=top1,
            top5=top5,
            agreement=self.agree / self.samples if classified else None,
            kl=self.kl / self.samples if classified else None,
            lost=self.lost if self.labelled else None,
            gained=self.gained if self.labelled else None,
            outputs={name: distance(sums) for name, sums in self.errors.items()},
            samples_per_second=other.rate,
        )

    def _shares(self, hits: NDArray, wide: bool) -> tuple[float | None, float | None]:
        if not self.labelled:
            return None, None
        return float(hits[0] / self.labelled), float(hits[1] / self.labelled) if wide else None


def distance(sums: ErrorSums) -> OutputDistance:
    """The figures of running sums."""
    sqnr = sums.sqnr_db
    if sqnr == math.inf:
        return OutputDistance(None, sums.cosine, sums.err_max)
    return OutputDistance(sqnr if math.isfinite(sqnr) else NO_SIGNAL_DB, sums.cosine, sums.err_max)


def _standard_error(share: float | None, n: int) -> float | None:
    return math.sqrt(share * (1.0 - share) / n) if share is not None else None


def plain(value: Any) -> Any:
    """The value with None in place of numbers that are infinite or not a number, in dicts and lists too."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
