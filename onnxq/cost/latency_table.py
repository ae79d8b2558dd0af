"""The file of `onnxq latency`: the time of every layer at every width, and the overhead of a run outside layers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from onnxq.cost.prepared import Prepared
from onnxq.cost.width_costs import BASE_BITS, ModelCosts, Pair
from onnxq.errors import ConfigError
from onnxq.graph.files import read_json, write_text

FORMAT, OLD_FORMAT = "onnxq-latency-2", "onnxq-latency-1"  # the old one has only 8-bit activations


@dataclass(frozen=True)
class LayerLatency:
    """One layer. seconds, error: by (weight bits, activation bits), minus the time of an empty call.

    operator: what runs it, "" if it stays float and so costs the same at every width. measured: in this run, not taken
    from the cache.
    """

    node: str
    operator: str
    seconds: Mapping[Pair, float]
    error: Mapping[Pair, float]
    measured: bool


@dataclass(frozen=True)
class Latencies:
    """Results of `onnxq latency`.

    bits, activation_bits: widths of weights and of activations. whole: seconds of a run of the model lowered at one
    pair of widths throughout, by pair. overhead: seconds outside the
    layers; negative where layers run faster in sequence than alone. call: of an empty call. machine: cpu, isa,
    threads, library (SHA-256 of the kernels). inputs: shapes by name. fixed: of a quantized model, each layer at the
    widths that it has; `whole` then has one entry, under the largest widths. A search takes those of a float model.
    """

    model_sha256: str
    model_name: str
    profile: str
    bits: tuple[int, ...]
    layers: tuple[LayerLatency, ...]
    whole: Mapping[Pair, float]
    overhead: float
    call: float
    machine: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    activation_bits: tuple[int, ...] = (BASE_BITS,)
    fixed: bool = False

    def predict(self, weights: Mapping[str, int], activations: Mapping[str, int] | None = None) -> float:
        """Estimated seconds of a run. weights, activations: {layer: bits}; activations are 8 bits by default."""
        widths = activations or {}
        return self.overhead + sum(e.seconds[weights[e.node], widths.get(e.node, BASE_BITS)] for e in self.layers)

    def join(
        self,
        costs: ModelCosts,
        prepared: Prepared,
        widths: Iterable[int],
        activation_widths: Iterable[int] = (BASE_BITS,),
    ) -> ModelCosts:
        """The costs with latencies. Raises ConfigError for a different model, and for layers or widths not measured."""
        model = prepared.model
        if model.sha256 != self.model_sha256:
            raise ConfigError(
                f"the latencies are for another model ({self.model_name}, SHA-256 {self.model_sha256[:12]}…), not for "
                f"{model.name} ({model.sha256[:12]}…): run `onnxq latency` on this one"
            )
        known = {e.node: e.seconds for e in self.layers}
        missing = sorted(set(widths) - set(self.bits))
        if missing:
            raise ConfigError(
                f"the latencies were measured at {_list(self.bits)} bits, not at {_list(missing)}: measure those too"
            )
        missing = sorted(set(activation_widths) - set(self.activation_bits))
        if missing:
            raise ConfigError(
                f"the latencies were measured with activations of {_list(self.activation_bits)} bits, not of "
                f"{_list(missing)}: measure those too (onnxq latency --activation-bits)"
            )
        absent = [c.node for c in costs.layers if c.node not in known]
        if absent:
            raise ConfigError(
                f"the latencies (profile {self.profile}) have no layer {absent[0]}; measure again with this profile"
            )
        layers = tuple(replace(c, seconds=dict(known[c.node])) for c in costs.layers)
        return replace(costs, layers=layers, overhead=self.overhead)

    def to_json(self) -> str:
        """The file's text (JSON)."""
        table = {
            **asdict(self),
            "whole": _text(self.whole),
            "layers": [{**asdict(e), "seconds": _text(e.seconds), "error": _text(e.error)} for e in self.layers],
        }
        return json.dumps({"format": FORMAT, **table}, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file atomically. Raises OutputError."""
        write_text(path, self.to_json())


def load_latencies(path: str | Path) -> Latencies:
    """Read the file of `onnxq latency`. Raises ConfigError if it is missing, not such a file, or damaged."""
    file = Path(path)
    table = read_json(file, "a latency file")
    if not isinstance(table, dict) or table.get("format") not in (FORMAT, OLD_FORMAT):
        raise ConfigError(f"{file}: not a latency file that onnxq reads (expected format {FORMAT!r})")
    if table.get("fixed"):
        raise ConfigError(
            f"{file}: the latencies of a quantized model, at the widths that it has; measure the float model"
        )
    try:
        layers = tuple(
            LayerLatency(
                str(e["node"]), str(e["operator"]), _widths(e["seconds"]), _widths(e["error"]), bool(e["measured"])
            )
            for e in table["layers"]
        )
        bits = tuple(int(b) for b in table["bits"])
        activations = tuple(int(b) for b in table.get("activation_bits", [BASE_BITS]))
        if any(set(e.seconds) != set(product(bits, activations)) for e in layers):
            raise ValueError("a layer lacks a width")
        return Latencies(
            str(table["model_sha256"]),
            str(table["model_name"]),
            str(table["profile"]),
            bits,
            layers,
            _widths(table["whole"]),
            float(table["overhead"]),
            float(table["call"]),
            dict(table["machine"]),
            dict(table["inputs"]),
            activations,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        what = f"{err.args[0]!r} is missing" if isinstance(err, KeyError) else err
        raise ConfigError(f"{file}: a damaged latency file: {what}") from None


def _text(values: Mapping[Pair, float]) -> dict[str, float]:
    """JSON: keys as W4A8."""
    return {f"W{w}A{a}": v for (w, a), v in values.items()}


def _widths(table: Mapping[str, Any]) -> dict[Pair, float]:
    """Inverse of _text; also reads keys of weight widths alone, as in files of the old format."""
    found: dict[Pair, float] = {}
    for key, value in table.items():
        weights, _, activations = key.removeprefix("W").partition("A")
        found[int(weights), int(activations or BASE_BITS)] = float(value)
    if not all(math.isfinite(v) for v in found.values()):
        raise ValueError("a time is not finite")
    return found


def _list(bits: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(bits)))


__all__ = ["Latencies", "LayerLatency", "load_latencies"]
