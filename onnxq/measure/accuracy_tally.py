"""Sums over batches from which accuracy, agreement and output distances are computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.source import Batch
from onnxq.errors import ConfigError, DataError
from onnxq.graph.model import Model
from onnxq.measure.evaluation import Against, Evaluation, distance
from onnxq.numeric.classification import Scores, is_probability, kl_divergence, top_classes, true_ranks
from onnxq.numeric.metrics import ErrorSums

TOP = 5


class AccuracyTally:
    """Running sums of one evaluation. output: the tensor that the user chose, None for the model's own outputs."""

    def __init__(self, model: Model, output: str | None) -> None:
        self.model, self.chosen = model, output
        self.scores: Scores | None = None
        self.samples = self.labelled = 0
        self.hits = np.zeros(2, np.int64)  # top-1, top-5
        self.float_hits = np.zeros(2, np.int64)
        self.agree = self.lost = self.gained = 0
        self.kl = 0.0
        self.probability: bool | None = None
        self.errors: dict[str, ErrorSums] = {}

    def add(self, batch: Batch, values: dict[str, NDArray], reference: dict[str, NDArray] | None) -> None:
        """One batch. values, reference: outputs of the evaluated and of the float model, by name.

        Raises ConfigError for outputs that cannot be scored or compared, DataError for labels outside the classes.
        """
        if not self.samples:
            self.scores = Scores.choose({n: v.shape for n, v in values.items()}, batch.count)
            if self.scores is None and (self.chosen or batch.labels is not None):
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
            return  # a tensor without class scores can still be compared
        shapes = ", ".join(f"{n} {list(v.shape)}" for n, v in values.items())
        raise ConfigError(
            f"{self.model.name}: no single output has one score for each class ({shapes}); choose one with --output, "
            "or omit the labels"
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
        self, *, speed: float, threads: int, batch_size: int, against: Against | None, data: dict[str, Any]
    ) -> Evaluation:
        """The result. speed: of the evaluated model, in samples per second. against: from `against`, None without."""
        top1, top5 = self._shares(self.hits)
        return Evaluation(
            model=self.model.name,
            model_sha256=self.model.sha256,
            samples=self.samples,
            labelled=self.labelled,
            output=self.scores.output if self.scores is not None else None,
            top1=top1,
            top1_error=_standard_error(top1, self.labelled),
            top5=top5,
            top5_error=_standard_error(top5, self.labelled),
            ms_per_sample=1000.0 / speed,
            samples_per_second=speed,
            threads=threads,
            batch_size=batch_size,
            against=against,
            data=data,
        )

    def against(self, reference: Model, speed: float) -> Against:
        """How the evaluated model differs from the float one. speed: of the float one, in samples per second."""
        top1, top5 = self._shares(self.float_hits)
        classified = self.scores is not None
        return Against(
            model=reference.name,
            model_sha256=reference.sha256,
            top1=top1,
            top5=top5,
            agreement=self.agree / self.samples if classified else None,
            kl=self.kl / self.samples if classified else None,
            lost=self.lost if self.labelled else None,
            gained=self.gained if self.labelled else None,
            outputs={name: distance(sums) for name, sums in self.errors.items()},
            samples_per_second=speed,
        )

    def _shares(self, hits: NDArray) -> tuple[float | None, float | None]:
        """(top-1, top-5); None without labels; top-5 also None with five classes or fewer."""
        if not self.labelled:
            return None, None
        wide = self.scores is not None and self.scores.classes > TOP
        return float(hits[0] / self.labelled), float(hits[1] / self.labelled) if wide else None


def _standard_error(share: float | None, n: int) -> float | None:
    return math.sqrt(share * (1.0 - share) / n) if share is not None else None
