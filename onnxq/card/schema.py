"""A quantization card as plain data, to and from JSON. Every field is checked when a card is read."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Self

from onnxq.card.parts import (
    Cost,
    FloatNode,
    LayerRecord,
    Lowering,
    Operations,
    Precision,
    Pretrained,
    ProfileRecord,
    QuantizationMethod,
    Remark,
    Resources,
    SearchRecord,
)
from onnxq.errors import ModelError

SCHEMA = 1


@dataclass(frozen=True)
class CardData:
    """The contents of a card. Equal inputs give equal ones, except for what `without_measurements` blanks.

    versions: {package: version}. pipeline: the passes in text form. widened_biases: {layer: channels whose weight scale
    was widened to fit the bias}. lowering: only for a model lowered to integer operators. search: only where a search
    chose the widths. evaluation: None until the model is evaluated. schema: version of this format.
    """

    versions: dict[str, str]
    profile: ProfileRecord
    pipeline: str
    method: QuantizationMethod
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

    def with_evaluation(self, evaluation: dict[str, Any] | None) -> Self:
        """The card with the results of an evaluation (JSON types, such as Evaluation.to_dict())."""
        return dataclasses.replace(self, evaluation=evaluation)

    def without_measurements(self) -> Self:
        """The card with times, memory and evaluation blanked; the rest is reproducible."""
        passes = tuple(dataclasses.replace(p, seconds=0.0) for p in self.resources.passes)
        resources = dataclasses.replace(self.resources, passes=passes, seconds=0.0, peak_rss_bytes=0)
        return dataclasses.replace(self, resources=resources, evaluation=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, `schema` first."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"schema": plain.pop("schema"), **plain}

    @classmethod
    def from_dict(cls, table: Any, where: str = "card") -> Self:
        """The inverse of to_dict. where: the source, for messages.

        Raises ModelError that names the malformed key, or reports that a newer onnxq wrote the card.
        """
        if not isinstance(table, dict) or "schema" not in table:
            raise ModelError(f"{where}: not a quantization card (no schema number in it)")
        version = table["schema"]
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ModelError(f"{where}: not a quantization card (schema {version!r})")
        if version > SCHEMA:
            raise ModelError(f"{where}: card schema {version} is newer than this onnxq reads ({SCHEMA}); update onnxq")
        return typing.cast(Self, _build(cls, table, where, ""))

    def to_json(self, compact: bool = False) -> str:
        """The card as JSON text, indented; compact: without any white space."""
        if compact:
            return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "card") -> Self:
        """The inverse of to_json. Raises ModelError."""
        try:
            table = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as err:
            raise ModelError(f"{where}: not a quantization card: {err}") from None
        return cls.from_dict(table, where)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    return value


def _build(hint: Any, value: Any, where: str, path: str) -> Any:
    """A value of type `hint` from JSON types. Raises ModelError that names the place."""
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
