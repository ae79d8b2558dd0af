"""Results of `evaluate`, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxq.numeric.metrics import ErrorSums
from onnxq.records import plain

NO_SIGNAL_DB = -300.0


@dataclass(frozen=True)
class OutputDistance:
    """Distance of one output from the float model's.

    sqnr_db: signal-to-quantization-noise ratio in dB; None if equal, NO_SIGNAL_DB if there is no ratio (an output
    contains NaN, or the float one is all zeros). cosine: similarity of the flattened outputs. max_abs_error: in the
    output's own unit.
    """

    sqnr_db: float | None
    cosine: float
    max_abs_error: float


@dataclass(frozen=True)
class Against:
    """The float model on the same samples, and how the evaluated model differs from it.

    top1, top5: the float model's shares, None without labels. agreement: share of samples with the same top class.
    kl: mean over samples of KL(float ‖ model) of the class probabilities, in nats. lost, gained: samples that only the
    float model, or only the quantized one, classifies correctly. outputs: error of every compared output.
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
    """Accuracy and speed of a model. Shares are between 0 and 1.

    output: the classification output; None if there is none. labelled: samples with a label. top1_error, top5_error:
    standard errors of the shares, sqrt(p (1 − p) / labelled). ms_per_sample, samples_per_second: of the session's runs
    alone, after one warm-up run. threads: as requested, 0 is onnxruntime's default. batch_size: the largest batch run.
    data: description of the source, for the card.
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
        """JSON types only; numbers that JSON cannot represent (infinite, NaN) are None."""
        return plain(asdict(self))


def distance(sums: ErrorSums) -> OutputDistance:
    """The distance computed from running sums of errors."""
    sqnr = sums.sqnr_db
    if sqnr == math.inf:
        return OutputDistance(None, sums.cosine, sums.err_max)
    return OutputDistance(sqnr if math.isfinite(sqnr) else NO_SIGNAL_DB, sums.cosine, sums.err_max)
