"""The parts of a quantization card. Every field has a JSON type; its name is the key in the card's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxq.card.measured import measured


@dataclass(frozen=True)
class NumberFormat:
    """Format of weights or activations.

    bits: the widths that the target supports. form: symmetric or affine. sign: signed, unsigned or auto (unsigned where
    non-negative). granularity: per-tensor, per-channel or per-block. scale: float32 or power of two. clipping: how
    ranges were chosen.
    """

    bits: tuple[int, ...]
    form: str
    sign: str
    granularity: str
    scale: str
    narrow_range: bool
    clipping: str


@dataclass(frozen=True)
class QuantizationMethod:
    """Section 1, the quantization method.

    uniform: equal steps. static: activation ranges are fixed by calibration. bias: "int32" or the float type kept.
    """

    uniform: bool
    static: bool
    weights: NumberFormat
    activations: NumberFormat
    rounding: str
    bias: str


@dataclass(frozen=True)
class OperatorCount:
    """Nodes of one operator that run in integers, only move integers, run inside another node, or stay in float."""

    op: str
    total: int
    quantized: int
    passthrough: int
    fused: int
    left_float: int


@dataclass(frozen=True)
class EndLayer:
    """A first or last layer and its widths."""

    name: str
    weight_bits: int
    activation_bits: int


@dataclass(frozen=True)
class Operations:
    """Section 2, what is quantized. The texts describe how residual connections, concatenations and so on are treated.

    residual_adds, residual: sums of activations. skip_concats, skip: concatenations of a tensor with one computed from
    it, which thus reaches later layers past earlier ones (DenseNet, U-Net).
    """

    by_op: tuple[OperatorCount, ...]
    residual_adds: int
    residual: str
    concat: str
    pooling: str
    embeddings: str
    fused_activations: tuple[str, ...]
    absorbed_activations: int
    batchnorm: str
    first_last: tuple[EndLayer, ...]
    skip_concats: int = 0
    skip: str = ""


@dataclass(frozen=True)
class WidthCount:
    """Layers, or activation tensors (with parameters and macs 0), of one width in bits; 32 is float."""

    bits: int
    count: int
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Change:
    """A figure of the float model (before) and of the quantized one (after)."""

    before: int
    after: int


@dataclass(frozen=True)
class FeatureMapBytes:
    """Feature-map memory in bytes: the largest map, the peak of all alive at a time, the average. count: of maps."""

    largest: Change
    peak: Change
    average: Change
    count: int


@dataclass(frozen=True)
class Precision:
    """Section 3, mixed precision.

    weight_bits, activation_bits, first_last_bits: as requested. overrides: number of nodes with individual widths.
    weights, activations: widths in use. feature_maps: None if the model leaves shapes open.
    """

    weight_bits: int
    activation_bits: int
    first_last_bits: int | None
    overrides: int
    weights: tuple[WidthCount, ...]
    activations: tuple[WidthCount, ...]
    feature_maps: FeatureMapBytes | None


@dataclass(frozen=True)
class DataUse:
    """Calibration data. samples: number seen, None if unknown. sha256: of its content.

    random: random numbers. synthetic: not recorded from the real world: random, or made, as the user says.
    """

    kind: str
    name: str
    samples: int | None
    labelled: bool
    sha256: str
    preprocess: Any
    random: bool
    synthetic: bool = False


@dataclass(frozen=True)
class PassRecord:
    """One executed pass. text: with its options. changed: number of rewrites. seconds: only beside the model."""

    text: str
    changed: int
    seconds: float | None = measured()


@dataclass(frozen=True)
class Resources:
    """Section 4, resource complexity.

    seconds, peak_rss_bytes (of the process), threads (0 is automatic): of the run, so only beside the model.
    training_samples: of one epoch of the float model's training, None if unknown.
    """

    data: tuple[DataUse, ...]
    passes: tuple[PassRecord, ...]
    seconds: float | None = measured()
    peak_rss_bytes: int | None = measured()
    threads: int | None = measured()
    training_samples: int | None = None

    @property
    def epoch_share(self) -> float | None:
        """The calibration samples as a share of one training epoch; None if either number is unknown."""
        counts = [use.samples for use in self.data]
        if self.training_samples is None or not counts or any(c is None for c in counts):
            return None
        return sum(c or 0 for c in counts) / self.training_samples


@dataclass(frozen=True)
class Pretrained:
    """Section 5, the float model.

    sha256: of its file. inputs: {name: shape}. unknown_macs: layers whose shapes are unknown. assumed: shapes that were
    assumed.
    """

    name: str
    sha256: str
    opset: int
    ir_version: int
    producer: str
    inputs: dict[str, str]
    parameters: int
    macs: int
    unknown_macs: tuple[str, ...]
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """Costs of the model. file_bytes: without this card. constant_bytes: weights, scales… bops: bit operations."""

    file_bytes: Change
    constant_bytes: Change
    bops: Change


@dataclass(frozen=True)
class LayerRecord:
    """One layer. action: quantized, passthrough, fused, or float for the given reason. 32 bits is float.

    weight_scale: smallest and largest scale of its channels. macs, bops: None if unknown. size: bytes of its constants.
    """

    name: str
    op: str
    action: str
    reason: str
    weight_shape: tuple[int, ...] | None
    weight_bits: int | None
    weight_format: str
    per_channel: bool
    weight_scale: tuple[float, float] | None
    activation_bits: int | None
    activation_format: str
    parameters: int
    macs: int | None
    bops: int | None
    size: Change


@dataclass(frozen=True)
class FloatNode:
    """A node left in float."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """A remark of a pass (source) about a node, or a general one if node is empty."""

    source: str
    node: str
    text: str


@dataclass(frozen=True)
class ProfileRecord:
    """The hardware profile for which the model was made."""

    name: str
    summary: str
    source: str
    graph_scheme: int


@dataclass(frozen=True)
class Lowering:
    """The integer-only form.

    operators: {operator of com.onnxq: node count}. rescales: {form of the multipliers: operator count}. islands: float
    operators between integers.
    """

    operators: dict[str, int]
    rescales: dict[str, int]
    islands: tuple[FloatNode, ...]


@dataclass(frozen=True)
class SearchRecord:
    """How a search chose the widths.

    limits: as requested. optimal: proven. parameters: of the method. predicted, int8: {cost: amount} with these widths
    and with int8 throughout, in bytes, bit operations or seconds.
    """

    method: str
    sensitivity: str
    limits: tuple[str, ...]
    optimal: bool
    parameters: dict[str, Any]
    predicted: dict[str, float]
    int8: dict[str, float]
