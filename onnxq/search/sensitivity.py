"""Sensitivity of each layer at each width, which a search minimizes, as a file that records how it was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from onnxq.errors import ConfigError
from onnxq.graph.files import read_json, write_text

FORMAT = "onnxq-sensitivity-1"
Kind = Literal["weights", "layer", "activations"]
KINDS = ("weights", "layer", "activations")


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer's weights, one layer with its inputs, or one quantized activation.

    node: the layer; of an activation, the first node that reads it quantized, or its producer if none does.
    kind: "weights"; "layer" for the weights and the inputs, these in the profile's width; or "activations".
    bits: width → predicted loss increase, finite. standard_error: width → standard error of the estimate; empty if
    nothing was sampled. tensors: the activations that share one scale, and so one width. readers: every node that
    reads them quantized. Both are empty for weights and layers. extra: components of the values (traces, squared
    errors, accuracy), JSON types only.
    """

    node: str
    kind: Kind
    bits: Mapping[int, float]
    standard_error: Mapping[int, float] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of a model's layers, in topological order. Values compare within one file only.

    model_sha256: of the float model as read. method: how they were measured. created: profile, samples, probes,
    seed, loss…, JSON types only. seconds: that measuring took; not in the file, which the same command repeats.
    """

    model_sha256: str
    model_name: str
    method: str
    layers: tuple[LayerSensitivity, ...]
    created: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = field(default=None, compare=False)

    def of(self, kind: Kind) -> tuple[LayerSensitivity, ...]:
        """The entries of one kind."""
        return tuple(e for e in self.layers if e.kind == kind)

    def weights(self, bits: int) -> dict[str, float]:
        """Node → value of its weights alone at one width, for nodes that have it."""
        return {e.node: e.bits[bits] for e in self.of("weights") if bits in e.bits}

    @property
    def with_inputs(self) -> bool:
        """Whether layers were measured with their inputs quantized too (kind "layer")."""
        return any(e.kind == "layer" for e in self.layers)

    @property
    def by_layer(self) -> dict[str, Mapping[int, float]]:
        """Layer → width of its weights → value: of whole layers if they were measured, else of weights alone."""
        return {e.node: e.bits for e in self.of("layer" if self.with_inputs else "weights")}

    def at(self, bits: int) -> dict[str, float]:
        """Layer → value at one width of its weights, for layers that have it."""
        return {node: values[bits] for node, values in self.by_layer.items() if bits in values}

    def require_model(self, sha256: str, name: str = "the model") -> None:
        """Raise ConfigError unless these are sensitivities of the model with this hash."""
        if sha256 != self.model_sha256:
            raise ConfigError(
                f"the sensitivities are for another model ({self.model_name}, SHA-256 {self.model_sha256[:12]}…), not "
                f"for {name} ({sha256[:12]}…): run `onnxq sensitivity` on this one"
            )

    def to_json(self) -> str:
        """The file's text; equal sensitivities give equal texts."""
        table = {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "model_name": self.model_name,
            "method": self.method,
            "created": dict(self.created),
            "layers": [_entry(e) for e in self.layers],
        }
        return json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file atomically. Raises OutputError."""
        write_text(path, self.to_json())


def load_sensitivity(path: str | Path, model_sha256: str | None = None) -> Sensitivity:
    """Read a sensitivity file; with `model_sha256`, only one of that model.

    Raises ConfigError if the file is missing, not a sensitivity file, damaged, or of another model.
    """
    file = Path(path)
    table = read_json(file, "a sensitivity file")
    found = table.get("format") if isinstance(table, dict) else None
    if found != FORMAT:
        actual = f"format {found!r}" if isinstance(found, str) else "no format"
        raise ConfigError(f"{file}: not a sensitivity file that onnxq reads ({actual}, expected {FORMAT!r})")
    try:
        result = Sensitivity(
            _text(table, "model_sha256"),
            _text(table, "model_name"),
            _text(table, "method"),
            tuple(_parse_entry(e) for e in table["layers"]),
            dict(table["created"]),
        )
        _check_unique(result.layers)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        what = f"{err.args[0]!r} is missing" if isinstance(err, KeyError) else err
        raise ConfigError(f"{file}: a damaged sensitivity file: {what}") from None
    if model_sha256 is not None:
        try:
            result.require_model(model_sha256)
        except ConfigError as err:
            raise ConfigError(f"{file}: {err}") from None
    return result


def _entry(e: LayerSensitivity) -> dict[str, Any]:
    entry: dict[str, Any] = {"node": e.node, "kind": e.kind, "bits": {str(b): v for b, v in e.bits.items()}}
    if e.standard_error:
        entry["standard_error"] = {str(b): v for b, v in e.standard_error.items()}
    if e.kind == "activations":
        entry |= {"tensors": list(e.tensors), "readers": list(e.readers)}
    return entry | ({"extra": dict(e.extra)} if e.extra else {})


def _parse_entry(entry: Any) -> LayerSensitivity:
    node, kind = _text(entry, "node"), _text(entry, "kind")
    if kind not in KINDS:
        raise ValueError(f"{node}: kind {kind!r} is neither weights nor activations nor layer")
    tensors, readers = (_names(entry.get(key, []), f"{node}: {key}") for key in ("tensors", "readers"))
    bits, error = (_widths(entry.get(key, {}), f"{node}: {key}") for key in ("bits", "standard_error"))
    if not bits:
        raise ValueError(f"{node}: it has no widths")
    return LayerSensitivity(node, kind, bits, error, tensors, readers, dict(entry.get("extra", {})))  # type: ignore[arg-type]


def _widths(table: Any, where: str) -> dict[int, float]:
    found = {}
    for key, value in table.items():
        if not key.isdecimal() or len(key) > 3:
            raise ValueError(f"{where}: {key!r} is not a width")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{where}: {value!r} is not a finite number")
        found[int(key)] = float(value)
    return found


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{where}: {value!r} is not a list of names")
    return tuple(value)


def _text(table: Mapping[str, Any], key: str) -> str:
    if not isinstance(table[key], str):
        raise ValueError(f"{key}: {table[key]!r} is not text")
    return str(table[key])


def _check_unique(layers: tuple[LayerSensitivity, ...]) -> None:
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for e in layers:
        if (e.node, e.kind, e.tensors) in seen:
            raise ValueError(f"{e.node} occurs twice")
        seen.add((e.node, e.kind, e.tensors))
    if {"weights", "layer"} <= {e.kind for e in layers}:
        raise ValueError("it has both kinds of values for layers, weights and layer")
