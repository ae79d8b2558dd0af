"""What a quantization card holds. Plain data: every field is of a JSON type, and is checked when a card is read."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxq.errors import ModelError

SCHEMA = 1


@dataclass(frozen=True)
class NumberFormat:
    """Format of weights or activations. bits: the widths the target takes. clipping: how ranges were chosen."""

    bits: tuple[int, ...]
    form: str
    sign: str
    granularity: str
    scale: str
    narrow_range: bool
    clipping: str


@dataclass(frozen=True)
class Method:
    """Section 1, the quantization method. uniform: equal steps. static: activation ranges are fixed beforehand."""

    uniform: bool
    static: bool
    weights: NumberFormat
    activations: NumberFormat
    rounding: str
    bias: str


@dataclass(frozen=True)
class OperatorCount:
    """How many nodes of an operator run in integers, only move integers, run inside another one, or stay in float."""

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
    """Section 2, what is quantized. The texts say how skip connections, concatenations and so on are treated."""

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


@dataclass(frozen=True)
class WidthCount:
    """How much there is of one width; 32 is float. count: layers, or activation tensors (parameters, macs 0 there)."""

    bits: int
    count: int
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Change:
    """A figure of the float model and of the quantized one."""

    before: int
    after: int


@dataclass(frozen=True)
class FeatureMapBytes:
    """Feature maps in bytes: the largest, the peak of all alive at once, the average."""

    largest: Change
    peak: Change
    average: Change
    count: int


@dataclass(frozen=True)
class Precision:
    """Section 3, mixed precision: the widths asked for and used, and what feature maps take."""

    weight_bits: int
    activation_bits: int
    first_last_bits: int | None
    overrides: int
    weights: tuple[WidthCount, ...]
    activations: tuple[WidthCount, ...]
    feature_maps: FeatureMapBytes | None


@dataclass(frozen=True)
class DataUse:
    """The calibration data. samples: how many were seen. sha256: of its content. random: no data at all, noise."""

    kind: str
    name: str
    samples: int | None
    labelled: bool
    sha256: str
    preprocess: Any
    random: bool


@dataclass(frozen=True)
class PassRecord:
    """One pass as it ran. seconds is measured."""

    text: str
    changed: int
    seconds: float


@dataclass(frozen=True)
class Resources:
    """Section 4, resource complexity. seconds, peak_rss_bytes (of the process): measured. threads: 0 is automatic."""

    data: tuple[DataUse, ...]
    passes: tuple[PassRecord, ...]
    seconds: float
    peak_rss_bytes: int
    threads: int | None


@dataclass(frozen=True)
class Pretrained:
    """Section 5, the float model. sha256: of its file. unknown_macs: layers whose shapes are not known."""

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
    """What the model costs. file_bytes: without this card. constant_bytes: weights, scales… bops: bit operations."""

    file_bytes: Change
    constant_bytes: Change
    bops: Change


@dataclass(frozen=True)
class LayerRecord:
    """One layer. action: quantized, passthrough, fused or float (then reason says why). 32 bits is float.

    weight_scale: smallest and largest scale of its channels. size: bytes of its constants.
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
    """What a pass said, about one node or (node empty) in general."""

    source: str
    node: str
    text: str


@dataclass(frozen=True)
class ProfileRecord:
    """The hardware profile the model was made for."""

    name: str
    summary: str
    source: str
    graph_scheme: int


@dataclass(frozen=True)
class Lowering:
    """The integer-only form. operators: how many of each of com.onnxq. rescales: how many of them have multipliers of
    each form. islands: float operators between integers.
    """

    operators: dict[str, int]
    rescales: dict[str, int]
    islands: tuple[FloatNode, ...]


@dataclass(frozen=True)
class SearchRecord:
    """How the widths were chosen. limits: as asked for. parameters: of the method. predicted, int8: {cost: amount} of
    these widths and of int8 throughout: bytes, bit operations, seconds.
    """

    method: str
    sensitivity: str
    limits: tuple[str, ...]
    optimal: bool
    parameters: dict[str, Any]
    predicted: dict[str, float]
    int8: dict[str, float]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> SearchRecord:
        """From the [search] table of a config; whatever is not there is empty."""

        def amounts(key: str) -> dict[str, float]:
            found = table.get(key)
            found = found if isinstance(found, dict) else {}
            return {k: float(v) for k, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}

        return cls(
            str(table.get("method", "")),
            str(table.get("sensitivity", "")),
            tuple(str(text) for text in table.get("limits", ())),
            table.get("optimal") is True,
            _json_types(table.get("parameters", {})),
            amounts("predicted"),
            amounts("int8"),
        )


@dataclass(frozen=True)
class Card:
    """A quantization card. Equal inputs give equal cards, apart from what `measured` lists.

    lowering: only of a model that was lowered to integer operators. search: only where a search chose the widths.
    """

    versions: dict[str, str]
    profile: ProfileRecord
    pipeline: str
    method: Method
    operations: Operations
    precision: Precision
    resources: Resources
    pretrained: Pretrained
    cost: Cost
    layers: tuple[LayerRecord, ...]
    float_nodes: tuple[FloatNode, ...]
    widened_biases: dict[str, int]
    remarks: tuple[Remark, ...]
    lowering: Lowering | None = None
    search: SearchRecord | None = None
    evaluation: dict[str, Any] | None = None
    schema: int = field(default=SCHEMA)

    @property
    def random_data(self) -> bool:
        """Whether the ranges come from random numbers instead of data."""
        return any(d.random for d in self.resources.data)

    def with_evaluation(self, evaluation: dict[str, Any] | None) -> Card:
        """The card with the results of an evaluation (JSON types, e.g. accuracy.Evaluation.to_dict)."""
        return dataclasses.replace(self, evaluation=evaluation)

    def without_measurements(self) -> Card:
        """The card with times, memory and evaluation blanked: what is left is reproducible."""
        passes = tuple(dataclasses.replace(p, seconds=0.0) for p in self.resources.passes)
        resources = dataclasses.replace(self.resources, passes=passes, seconds=0.0, peak_rss_bytes=0)
        return dataclasses.replace(self, resources=resources, evaluation=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, `schema` first."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"schema": plain.pop("schema"), **plain}

    @classmethod
    def from_dict(cls, table: Any, where: str = "card") -> Card:
        """The inverse of to_dict. Raises ModelError naming what is malformed, or that a newer onnxq wrote it."""
        if not isinstance(table, dict) or "schema" not in table:
            raise ModelError(f"{where}: not a quantization card (no schema number in it)")
        version = table["schema"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ModelError(f"{where}: not a quantization card (schema {version!r})")
        if version > SCHEMA:
            raise ModelError(f"{where}: card schema {version} is newer than this onnxq reads ({SCHEMA}); update onnxq")
        return typing.cast(Card, _build(cls, table, where, ""))

    def to_json(self, compact: bool = False) -> str:
        """The card as JSON text: indented, or in as few bytes as possible."""
        if compact:
            return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "card") -> Card:
        """The inverse of to_json. Raises ModelError."""
        try:
            table = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as err:
            raise ModelError(f"{where}: not a quantization card: {err}") from None
        return cls.from_dict(table, where)

    def to_markdown(self) -> str:
        """The card as Markdown with tables."""
        from onnxq.card.markdown import render

        return render(self)

    def to_html(self) -> str:
        """The card as one HTML page without anything outside it: styles and pictures are inline."""
        from onnxq.card.html import render

        return render(self)

    def summary(self) -> str:
        """A few lines for the terminal."""
        from onnxq.card.text import summary

        return summary(self)


def _json_types(table: Any) -> dict[str, Any]:
    """A table that a person may have edited: what JSON has no word for (dates of TOML) as text."""
    return dict(json.loads(json.dumps(table, default=str))) if isinstance(table, dict) else {}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return value


def _build(hint: Any, value: Any, where: str, path: str) -> Any:
    """A value of the type that `hint` says from JSON; ModelError naming the place otherwise."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        return None if value is None else _build(next(a for a in args if a is not type(None)), value, where, path)
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, value, where, path)
    if origin is tuple:
        _expect(isinstance(value, list), "a list", where, path)
        if args[-1] is Ellipsis:
            return tuple(_build(args[0], v, where, f"{path}[{i}]") for i, v in enumerate(value))
        _expect(len(value) == len(args), f"a list of {len(args)}", where, path)
        return tuple(_build(a, v, where, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if origin is dict:
        _expect(isinstance(value, dict), "a table", where, path)
        return {k: _build(args[1], v, where, f"{path}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _expect(type(value) is hint, f"of type {hint.__name__}", where, path)
    return value


def _build_dataclass(cls: Any, value: Any, where: str, path: str) -> Any:
    _expect(isinstance(value, dict), "a table", where, path)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in value:
        _expect(key in fields, "a key of a card", where, f"{path}.{key}")
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING
        _expect(name in value or optional, "there", where, f"{path}.{name}")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _build(hints[key], v, where, f"{path}.{key}") for key, v in value.items()})


def _expect(condition: bool, what: str, where: str, path: str) -> None:
    if not condition:
        raise ModelError(f"{where}: malformed quantization card: {path.lstrip('.') or 'it'} must be {what}")
