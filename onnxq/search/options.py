"""Options of measure_sensitivity: what is measured, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnxq.calibrate.ranges import parse_chooser
from onnxq.data.options import RunKeywords, SampleKeywords
from onnxq.errors import ConfigError
from onnxq.numeric.formats import WeightRange
from onnxq.placement.settings import DEFAULT_CALIBRATION
from onnxq.reporting import Progress
from onnxq.search.float_runs import MEMORY
from onnxq.search.hessian import HutchinsonOptions
from onnxq.search.objective import Loss
from onnxq.search.one_at_a_time import METRICS, Metric

Method = Literal["hessian", "one-at-a-time", "weight-error", "output-error"]
METHODS = ("hessian", "one-at-a-time", "weight-error", "output-error")


@dataclass(frozen=True)
class SensitivityOptions:
    """One measurement of sensitivities.

    method:
    * hessian: ½ · mean trace of the layer's Hessian · ‖Q_b(W) − W‖², half of HAWQ-V2's Ω (equation 2.11), which is the
      loss increase to second order.
    * one-at-a-time: the model's loss with only that layer quantized, by `metric`: loss (increase in nats, or of the
      squared error), accuracy (share of top-1 lost; of top classes moved, without labels), output-error (of the
      objective's tensors, squared, relative).
    * output-error: squared error of the layer's own output, relative. weight-error: of its weights, relative.
    bits: widths of weights; None means all of the profile's. activation_bits: widths of activations, measured one at a
    time with any method (except weight-error). loss, output: see find_objective.
    labels: one-at-a-time and second differences compute the loss on labels, not on the float model's own outputs (which
    work as well: Garg et al. 2021, observation 7; the Gauss–Newton matrix is the same).
    weight_range, calibration, exclude: as in QuantSettings. memory: bytes of inner tensors kept at a time.
    traces: how the method hessian estimates them.
    Raises ConfigError for a method or metric that does not exist or cannot measure what is requested.
    """

    method: Method = "hessian"
    bits: Sequence[int] | None = None
    activation_bits: Sequence[int] = ()
    loss: Loss = "auto"
    output: str | None = None
    metric: Metric = "loss"
    labels: bool = False
    weight_range: WeightRange | None = None
    calibration: str = DEFAULT_CALIBRATION
    exclude: Sequence[str] = ()
    memory: int = MEMORY
    traces: HutchinsonOptions = field(default_factory=HutchinsonOptions)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r}: choose from {', '.join(METHODS)}")
        if self.metric not in METRICS:
            raise ConfigError(f"metric {self.metric!r}: choose from {', '.join(METRICS)}")
        if self.method == "weight-error" and self.activation_bits:
            raise ConfigError("weight-error measures only weights; measure activations with another method")
        parse_chooser(self.calibration)

    @property
    def own_output(self) -> bool:
        """Whether each layer's own output is measured, not the model's."""
        return self.method == "output-error"


class SensitivityKeywords(SampleKeywords, RunKeywords, total=False):
    """Single options that measure_sensitivity accepts as keywords: the fields of SensitivityOptions, and others."""

    method: Method
    bits: Sequence[int] | None
    activation_bits: Sequence[int]
    loss: Loss
    output: str | None
    metric: Metric
    labels: bool
    weight_range: WeightRange | None
    calibration: str
    exclude: Sequence[str]
    memory: int
    progress: Progress | None
    say: Callable[[str], None]
