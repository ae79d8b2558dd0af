"""What the user asks for, beyond the profile: bits, calibration method, per-node overrides, exclusions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from onnxq.errors import ConfigError
from onnxq.graph.name_patterns import BadPatternError, full_match
from onnxq.numeric.formats import MAX_BITS, MIN_BITS, WeightRange, default_weight_range
from onnxq.records import BadText, closest, parse_json, parse_toml, read_text

DEFAULT_FIRST_LAST_BITS = 8
DEFAULT_CALIBRATION = "mse"


@dataclass(frozen=True)
class Override:
    """Bits of one node, or keep_float to leave it alone. None means: as without the override."""

    weight_bits: int | None = None
    activation_bits: int | None = None
    keep_float: bool = False


@dataclass(frozen=True)
class QuantSettings:
    """Settings of one quantization.

    weight_bits, activation_bits: for every layer, 2 to 8; None takes the profile's default.
    first_last_bits: weights and input activations of the first and last layers; None treats them like the others.
    calibration: range chooser for activations ("max", "percentile:99.99", "entropy", "mse").
    weight_range: "max" or "mse"; None is numeric.formats.default_weight_range.
    overrides: node name or regular expression (matched against the whole name) → Override, or what parse_overrides
    makes one of. A name beats a regular expression; among those the last that matches wins.
    exclude: node names or regular expressions left in float. op_types: quantize only these operators.
    Raises ConfigError for a width or a weight range that does not exist.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    first_last_bits: int | None = DEFAULT_FIRST_LAST_BITS
    calibration: str = DEFAULT_CALIBRATION
    weight_range: WeightRange | None = None
    overrides: Mapping[str, Override] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "first_last_bits"):
            _check_bits(getattr(self, name), name)
        if self.weight_range not in (None, "max", "mse"):
            raise ConfigError(f"weight_range: {self.weight_range!r} is neither max nor mse")
        object.__setattr__(self, "overrides", parse_overrides(self.overrides))
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if self.op_types is not None:
            object.__setattr__(self, "op_types", tuple(self.op_types))

    def weight_method(self, bits: int) -> WeightRange:
        """How the range of weights of this width is chosen."""
        return self.weight_range or default_weight_range(bits)

    def override_for(self, node: str) -> Override:
        """The override that applies to a node; an empty one if none does."""
        if node in self.overrides:
            return self.overrides[node]
        found = Override()
        for pattern, override in self.overrides.items():
            if _matches(pattern, node):
                found = override
        return found

    def excluded(self, node: str) -> bool:
        """Whether `exclude` names the node."""
        return any(pattern == node or _matches(pattern, node) for pattern in self.exclude)

    def check_names(self, nodes: Iterable[str], op_types: Iterable[str], source: str = "overrides") -> None:
        """Raise ConfigError for a pattern that matches no node, or an operator the model does not have.

        source: where the overrides come from, for the message.
        """
        names = list(nodes)
        check_patterns(self.overrides, names, source)
        check_patterns(self.exclude, names, "exclude")
        present = set(op_types)
        for op in self.op_types or ():
            if op not in present:
                raise ConfigError(f"the model has no {op} node (op_types); it has: {', '.join(sorted(present))}")


class SettingsKeywords(TypedDict, total=False):
    """The fields of QuantSettings as keywords; overrides also as a .toml or .json file."""

    weight_bits: int | None
    activation_bits: int | None
    first_last_bits: int | None
    calibration: str
    weight_range: WeightRange | None
    overrides: Mapping[str, Any] | str | Path | None
    exclude: Sequence[str]
    op_types: Sequence[str] | None


def check_patterns(patterns: Iterable[str], nodes: Iterable[str], where: str) -> None:
    """Raise ConfigError for a pattern that is neither the name of a node nor a regular expression that matches one."""
    names = list(nodes)
    for pattern in patterns:
        if pattern in names:
            continue
        try:
            found = any(full_match(pattern, name) for name in names)
        except BadPatternError as err:
            what = f"{pattern!r} is neither a node's name nor a regular expression"
            raise ConfigError(f"{where}: {what}: {err}") from None
        if not found:
            raise ConfigError(f"{where}: {pattern!r} matches no node of the model{closest(pattern, names)}")


def parse_overrides(table: Mapping[str, Any], where: str = "overrides") -> dict[str, Override]:
    """{"node or regex": {"weight_bits": 4, "activation_bits": 8} | "float"} to Overrides; ConfigError if malformed."""
    parsed = {}
    for pattern, value in table.items():
        if isinstance(value, Override):
            parsed[pattern] = value
        elif value == "float":
            parsed[pattern] = Override(keep_float=True)
        elif isinstance(value, Mapping):
            unknown = set(value) - {"weight_bits", "activation_bits"}
            if unknown:
                raise ConfigError(
                    f"{where}: {pattern!r} has unknown key {sorted(unknown)[0]!r} (known: weight_bits, activation_bits)"
                )
            for key, bits in value.items():
                _check_bits(bits, f"{where}: {pattern!r}: {key}")
            parsed[pattern] = Override(value.get("weight_bits"), value.get("activation_bits"))
        else:
            raise ConfigError(f'{where}: {pattern!r} must be "float" or a table of bits, not {value!r}')
    return parsed


def load_config(path: str | Path, model_sha256: str | None = None) -> dict[str, Override]:
    """Per-node overrides from a .toml or .json file: a table of nodes, at the top level or under the key "nodes".

    model_sha256: of the model they are for; a config that `onnxq search` made of another one is refused (ConfigError).
    """
    table = _read_table(Path(path))
    record = _search_record(table, str(path))
    if record is not None and model_sha256 and record["model_sha256"] not in ("", model_sha256):
        raise ConfigError(
            f"{path}: made by `onnxq search` for another model ({record.get('model', '?')}, SHA-256 "
            f"{record['model_sha256'][:12]}…), this one has {model_sha256[:12]}…; search again, or delete its [search] "
            "table"
        )
    nodes = table.get("nodes")
    if record is not None and not isinstance(nodes, dict):
        raise ConfigError(f"{path}: it has a [search] table, but no [nodes]")
    return parse_overrides(nodes if isinstance(nodes, dict) else table, str(path))


def load_search_record(path: str | Path) -> dict[str, Any] | None:
    """The [search] table of a config that `onnxq search` wrote: how its widths were chosen. None without one."""
    return _search_record(_read_table(Path(path)), str(path))


def _search_record(table: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    record = table.get("search")
    if not isinstance(record, dict) or "model_sha256" not in record:
        return None  # without that key it may be a node called search
    for key in ("method", "model_sha256"):
        if not isinstance(record.get(key), str):
            raise ConfigError(f"{where}: [search] has no text {key!r}")
    return record


def _read_table(file: Path) -> dict[str, Any]:
    try:
        table = (parse_json if file.suffix == ".json" else parse_toml)(read_text(file))
    except OSError as err:
        raise ConfigError(f"{file}: cannot be read: {err.strerror}") from None
    except BadText as err:
        raise ConfigError(f"{file}: {err}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: a table of node names is needed, not {type(table).__name__}")
    return table


def config_table(overrides: Mapping[str, Override]) -> dict[str, Any]:
    """Overrides as the JSON types of a config; parse_overrides reads them back to the same."""
    bits = {p: {"weight_bits": o.weight_bits, "activation_bits": o.activation_bits} for p, o in overrides.items()}
    return {
        pattern: "float" if override.keep_float else {k: v for k, v in bits[pattern].items() if v is not None}
        for pattern, override in overrides.items()
    }


def dump_config(overrides: Mapping[str, Override]) -> str:
    """Overrides as TOML that load_config reads back to the same."""
    lines = ["[nodes]"]
    for pattern, value in config_table(overrides).items():
        key = json.dumps(pattern, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML forbids it as it is
        if value == "float":
            lines.append(f'{key} = "float"')
            continue
        inner = ", ".join(f"{k} = {v}" for k, v in value.items())
        lines.append(f"{key} = {{ {inner} }}" if inner else f"{key} = {{}}")
    return "\n".join(lines) + "\n"


def _check_bits(bits: Any, where: str) -> None:
    if bits is None:
        return
    if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"{where}: {bits!r} is not a width of {MIN_BITS} to {MAX_BITS} bits")


def _matches(pattern: str, name: str) -> bool:
    """Whether the whole name matches; a pattern that is no regular expression is only a name (check_patterns)."""
    try:
        return full_match(pattern, name)
    except BadPatternError:
        return False
