"""The result of a search, and its file for `quantize --config`."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq._version import __version__
from onnxq.errors import printable
from onnxq.graph.files import write_text
from onnxq.placement.settings import Override, config_table, dump_config
from onnxq.search.limits import COSTS, format_cost
from onnxq.search.linear_program import Limit

if TYPE_CHECKING:
    from onnxq.measure.proof.record import Proof
    from onnxq.search.sensitivity import Sensitivity
    from onnxq.search.space import Assignment, Space

# Costs in the order of reports; stored is the size in the QDQ file.
PREDICTED = ("size", "stored", "bops", "latency", "peak", "largest", "average")


@dataclass(frozen=True)
class LayerChoice:
    """One layer of a result. weight_bits: None if it stays float.

    sensitivity (for MixQuant: mean squared error of the weights), seconds: by weight width, as far as known
    (at the chosen width of activations).
    """

    node: str
    op: str
    shape: tuple[int, ...]
    weight_bits: int | None
    activation_bits: int | None
    parameters: int
    macs: int | None
    sensitivity: Mapping[int, float] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """Widths of every layer, and their predicted costs.

    assignment: overrides of `quantize --config`. predicted, baseline: {cost: amount} of it, and of the same model at
    int8 (ModelCosts.of). limits: as requested, as text. sensitivity: its method, "" without one; value: the minimized
    sum. parameters: of the method, JSON types. optimal: proven by the solver. seconds: of the choice alone. proof: of
    the model that `quantize --config` makes of it, None without one.
    """

    method: str
    profile: str
    model_name: str
    model_sha256: str
    assignment: Mapping[str, Override]
    layers: tuple[LayerChoice, ...]
    predicted: Mapping[str, float]
    baseline: Mapping[str, float]
    limits: tuple[str, ...] = ()
    sensitivity: str = ""
    value: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    optimal: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    proof: Proof | None = None

    def counts(self) -> dict[int, int]:
        """Number of layers per weight width, descending; 32 is float."""
        found = Counter(c.weight_bits or 32 for c in self.layers)
        return dict(sorted(found.items(), reverse=True))

    def record(self) -> dict[str, Any]:
        """The [search] table of the config, which the card repeats."""
        table: dict[str, Any] = {
            "method": self.method,
            "profile": self.profile,
            "model": self.model_name,
            "model_sha256": self.model_sha256,
            "onnxq": __version__,
            "optimal": self.optimal,
        }
        if self.limits:
            table["limits"] = list(self.limits)
        if self.sensitivity:
            table["sensitivity"] = self.sensitivity
        if self.value is not None:
            table["value"] = self.value
        table["parameters"] = dict(self.parameters)
        table["predicted"] = {k: self.predicted[k] for k in PREDICTED if k in self.predicted}
        table["int8"] = {k: self.baseline[k] for k in PREDICTED if k in self.baseline}
        if self.proof is not None:
            table["proof"] = self.proof.summary()
        return table

    def to_toml(self) -> str:
        """The config file: a comment header, the [search] table, the overrides."""
        lines = [f"# Widths of {self.model_name}, for `onnxq quantize --config`. Method: {self.method}."]
        lines += [f"# limit: {text}" for text in self.limits]
        lines += [f"# predicted: {text}" for text in self.summary()]
        lines += [f"# {note}" for note in self.notes]
        comments = [printable(line) for line in lines]  # one with a line break would end the comment
        return "\n".join([*comments, "", _toml_table("search", self.record()), dump_config(self.assignment)])

    def summary(self) -> list[str]:
        """One line per cost: the prediction and its share of int8."""
        lines = []
        for cost in PREDICTED:
            if cost in self.predicted:
                name = COSTS[cost].name if cost in COSTS else "size in the ONNX file"
                lines.append(f"{name} {format_cost(cost, self.predicted[cost], self.baseline)}")
        return lines

    def save(self, path: str | Path) -> None:
        """Write the config atomically, as JSON if the file ends in .json, else as TOML. Raises OutputError."""
        json_file = Path(path).suffix == ".json"
        write_text(path, self.to_json() if json_file else self.to_toml())

    def to_json(self) -> str:
        """The config file as JSON: the search record and the overrides."""
        table = {"search": self.record(), "nodes": config_table(self.assignment)}
        return json.dumps(table, indent=1, ensure_ascii=False) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; without the seconds, so that equal results are equal."""
        table = self.record() | {"notes": list(self.notes)}
        if self.proof is not None:
            table["proof"] = self.proof.to_dict()
        return table | {"layers": [dataclasses.asdict(c) for c in self.layers]}


def result_of(
    space: Space,
    found: Assignment,
    method: str,
    limits: Sequence[Limit],
    *,
    sensitivity: Sensitivity | None = None,
    values: Mapping[str, Mapping[int, float]] | None = None,
    value: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    optimal: bool = False,
    seconds: float = 0.0,
    notes: Sequence[str] = (),
) -> SearchResult:
    """The result for an assignment of a space.

    values: {layer: {bits: value}} on which the choice was based, if there are no sensitivities.
    """
    model = space.prepared.model
    known = values or {}
    if sensitivity is not None:
        known = dict(sensitivity.by_layer)
    layers = tuple(
        LayerChoice(
            c.node,
            c.op,
            c.shape,
            found.weights[c.node],
            found.activations.get(c.group, 8),
            c.parameters,
            c.macs,
            known.get(c.node, {}),
            {w: s for (w, a), s in c.seconds.items() if a == found.activations.get(c.group, 8)},
        )
        for c in space.costs.layers
    )
    return SearchResult(
        method,
        space.prepared.profile.name,
        model.name,
        model.sha256,
        space.overrides(found),
        layers,
        space.totals(found),
        space.costs.baseline(),
        tuple(dict.fromkeys(limit.label for limit in limits)),
        sensitivity.method if sensitivity is not None else "",
        value,
        {"bits": list(space.weight_bits), "activation_bits": list(space.activation_bits)} | dict(parameters or {}),
        optimal,
        seconds,
        (*notes, *space.costs.assumed),
    )


def _toml_table(name: str, table: Mapping[str, Any]) -> str:
    """A table of plain values, lists and tables as TOML. Keys are words."""
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    lines = [f"[{name}]", *(f"{k} = {_toml_value(v)}" for k, v in plain.items() if v is not None), ""]
    text = "\n".join(lines)
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            text += "\n" + _toml_table(f"{name}.{key}", value)
    return text


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


__all__ = ["LayerChoice", "SearchResult", "result_of"]
