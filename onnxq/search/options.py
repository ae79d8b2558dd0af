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

LayerKind = Literal["weights", "layer"]
LAYER_KINDS = ("weights", "layer")
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
    kind: what one entry per layer quantizes: its "weights", or the "layer", weights and inputs together as `quantize`
    does (NVIDIA 2020, section 5.1); the inputs have the profile's width. Layers are measured one at a time.
    method None is one-at-a-time for layers, else hessian.
    bits: widths of weights; None means all of the profile's. activation_bits: widths of activations, measured one at a
    time with any method (except weight-error). loss, output: see find_objective.
    labels: one-at-a-time and second differences compute the loss on labels, not on the float model's own outputs (which
    work as well: Garg et al. 2021, observation 7; the Gauss–Newton matrix is the same).
    weight_range, calibration, exclude: as in QuantSettings. memory: bytes of inner tensors kept at a time.
    traces: how the method hessian estimates them.
    Raises ConfigError for a method or metric that does not exist or cannot measure what is requested.
    """

    method: Method | None = None
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
    kind: LayerKind = "weights"

    def __post_init__(self) -> None:
        if self.method not in (None, *METHODS):
            raise ConfigError(f"method {self.method!r}: choose from {', '.join(METHODS)}")
        if self.kind not in LAYER_KINDS:
            raise ConfigError(f"kind {self.kind!r}: choose from {', '.join(LAYER_KINDS)}")
        if self.kind == "layer" and self.chosen != "one-at-a-time":
            raise ConfigError(f"{self.method} measures weights alone; layers with their inputs need one-at-a-time")
        if self.kind == "layer" and self.activation_bits:
            raise ConfigError("layers are measured with their inputs quantized: leave out the widths of activations")
        if self.metric not in METRICS:
            raise ConfigError(f"metric {self.metric!r}: choose from {', '.join(METRICS)}")
        if self.chosen == "weight-error" and self.activation_bits:
            raise ConfigError("weight-error measures only weights; measure activations with another method")
        parse_chooser(self.calibration)

    @property
    def chosen(self) -> Method:
        """The method; the default of the kind if none was given."""
        return self.method or ("one-at-a-time" if self.kind == "layer" else "hessian")

    @property
    def own_output(self) -> bool:
        """Whether each layer's own output is measured, not the model's."""
        return self.chosen == "output-error"


class SensitivityKeywords(SampleKeywords, RunKeywords, total=False):
    """Single options that measure_sensitivity accepts as keywords: the fields of SensitivityOptions, and others."""

    method: Method | None
    kind: LayerKind
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
