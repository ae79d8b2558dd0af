"""A quantization card as plain data, to and from JSON. Every field is checked when a card is read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Self

from onnxq.card.measured import without_measured, without_speed
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
from onnxq.errors import ModelError, printable
from onnxq.measure.proof.record import Proof
from onnxq.records import BadRecord, BadText, build, parse_json, plain

SCHEMA = 1


@dataclass(frozen=True)
class CardData:
    """The contents of a card. Equal inputs give equal cards, except for what `without_measurements` removes.

    versions: {package: version}. pipeline: the passes in text form. widened_biases: {layer: channels whose weight scale
    was widened to fit the bias}. lowering: only for a model lowered to integer operators. search: only if a search
    chose the widths. evaluation: None until the model is evaluated. proof: None without one. schema: version of
    this format.
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
    proof: Proof | None = None
    schema: int = field(default=SCHEMA)

    @property
    def random_data(self) -> bool:
        """Whether the ranges come from random numbers instead of data."""
        return any(d.random for d in self.resources.data)

    def with_evaluation(self, evaluation: dict[str, Any] | None) -> Self:
        """The card with the results of an evaluation (JSON types, such as Evaluation.to_dict())."""
        return dataclasses.replace(self, evaluation=evaluation)

    def with_proof(self, proof: Proof) -> Self:
        """The card with a proof."""
        return dataclasses.replace(self, proof=proof)

    def without_measurements(self) -> Self:
        """The card as it is embedded in a model: without times, memory and threads (onnxq.card.measured)."""
        evaluation = None if self.evaluation is None else without_speed(self.evaluation)
        return dataclasses.replace(without_measured(self), evaluation=evaluation)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, `schema` first."""
        table = plain(self)
        return {"schema": table.pop("schema"), **table}

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
        try:
            return build(cls, table)
        except BadRecord as err:
            raise ModelError(f"{where}: malformed quantization card: {printable(str(err))}") from None

    def to_json(self, compact: bool = False) -> str:
        """The card as JSON text, indented; compact: without any white space."""
        if compact:
            return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "card") -> Self:
        """The inverse of to_json. Raises ModelError."""
        try:
            table = parse_json(text)
        except BadText as err:
            raise ModelError(f"{where}: not a quantization card: {err}") from None
        return cls.from_dict(table, where)
