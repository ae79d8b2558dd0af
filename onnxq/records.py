"""Tables to frozen dataclasses and back, with every key and type checked.

Used for everything in table form: hardware profiles (TOML), quantization cards (JSON), the options of passes and
plug-ins (text). It only knows fields and types; the caller knows the file and turns a BadRecord into its own error.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import pathlib
import re
import reprlib
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
MAX_BYTES = 256 << 20  # of a text file; the sensitivities of a thousand layers take less than 1 MiB
MAX_DEPTH = 50  # of a table
Path = tuple[str | int, ...]


class BadRecord(ValueError):
    """An error in a table. path: keys and list indices that lead to it. reason: the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{dotted(path)}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class BadText(ValueError):
    """Text that is not JSON or TOML, or goes beyond what a table of ours can need. One line."""


def read_text(file: pathlib.Path) -> str:
    """The text of a file. Raises OSError, or BadText if it is not UTF-8 or too large."""
    with open(file, "rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise BadText(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadText("not a text file") from None


def parse_json(text: str | bytes) -> Any:
    """JSON to a depth of MAX_DEPTH. As in TOML, there may be NaN and infinities. Raises BadText."""
    return _parsed(lambda: json.loads(text))


def parse_toml(text: str) -> dict[str, Any]:
    """TOML to a depth of MAX_DEPTH. Raises BadText."""
    return typing.cast("dict[str, Any]", _parsed(lambda: tomllib.loads(text)))


def _parsed(parse: Callable[[], Any]) -> Any:
    try:
        table = parse()
    except RecursionError:
        raise BadText(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as err:  # of both parsers, and for numbers of more digits than Python converts
        many = "integer string conversion" in str(err)
        raise BadText("a number of thousands of digits" if many else str(err)) from None
    level = [table]
    for _ in range(MAX_DEPTH):
        if not level:
            return table
        level = [v for value in level for v in _children(value)]
    raise BadText(f"nested deeper than {MAX_DEPTH} levels")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def build(cls: type[T], table: object) -> T:
    """A dataclass from a nested table of TOML or JSON types.

    Fields may be str, bool, int, float (an int is accepted), Any, Literal, X | None, tuples, dicts or Mappings with
    text keys, and dataclasses of these. Raises BadRecord for an unknown, missing or mistyped key.
    """
    return typing.cast(T, _build(cls, table, (), "key"))


def parse_options(cls: type[T], texts: Mapping[str, str]) -> T:
    """A flat dataclass from {option: text}; the inverse of print_options.

    none, true and false are keywords, the items of a tuple are separated by commas, and an option may be written with -
    for _. Raises BadRecord as `build` does.
    """
    fields = _fields(cls)
    table: dict[str, Any] = {}
    for option, text in texts.items():
        name = option.replace("-", "_")
        table[name if name in fields else option] = _decode(fields[name][1], text, option) if name in fields else text
    return typing.cast(T, _build(cls, table, (), "option"))


def print_options(instance: Any) -> dict[str, str]:
    """{option: text} for the fields that differ from their defaults, in order of definition."""
    values = {name: (getattr(instance, name), default(f)) for name, (f, _) in _fields(type(instance)).items()}
    return {name: _encode(value) for name, (value, usual) in values.items() if value != usual}


def refined(base: T, keywords: Mapping[str, Any]) -> T:
    """A copy of a dataclass with the keywords that are its fields replaced; other keywords are ignored."""
    given = {name: keywords[name] for name in _fields(type(base)) if name in keywords}
    return dataclasses.replace(typing.cast(Any, base), **given)


def check_keywords(function: str, keywords: Mapping[str, Any], known: type) -> None:
    """Raise TypeError, as Python does, for a keyword that the TypedDict `known` does not declare."""
    declared = typing.get_type_hints(known)
    for name in keywords:
        if name not in declared:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def plain(value: Any) -> Any:
    """A dataclass, or any value inside one, as JSON types. NaN and infinity become null: JSON cannot express them."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def default(field: dataclasses.Field[Any]) -> Any:
    """A field's default value, or dataclasses.MISSING."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def dotted(path: Path) -> str:
    """A path in dotted form: layers[0].macs."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def closest(name: str, known: Iterable[str]) -> str:
    """The text "; did you mean 'x'?" for a name that does not exist, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def suggest(name: str, known: Iterable[str], listed: str = "known") -> str:
    """A suffix for "no such name" errors: the closest known name, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else f" ({listed}: {', '.join(names) or 'none'})"


def toml_line(text: str, path: Path) -> int | None:
    """The line of a key in TOML text; tomllib keeps no positions, so the text is searched by table."""
    wanted = tuple(part for part in path if isinstance(part, str))
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header and "=" not in line.split("]")[0]:
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            if table == wanted:
                return number
        key = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if key:
            full = (*table, *(part.strip("\"'") for part in key.group(1).split(".")))
            if full == wanted[: len(full)]:
                return number
    return None


def _resolved(cls: Any) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return {f.name: (f, hints[f.name]) for f in dataclasses.fields(cls)}


# Name → field and resolved type, in order of definition.
_fields: Callable[[Any], dict[str, tuple[dataclasses.Field[Any], Any]]] = cache(_resolved)


def _build(cls: type, table: object, path: Path, noun: str) -> Any:
    if not isinstance(table, dict):
        raise BadRecord(path, "must be a table")
    fields = _fields(cls)
    for key in table:
        if key not in fields:
            raise BadRecord((*path, key) if noun == "key" else path, f"unknown {noun} {key!r}{suggest(key, fields)}")
    for name, (field, _) in fields.items():
        if name not in table and default(field) is dataclasses.MISSING:
            raise BadRecord(path, f"{noun} {name!r} is missing")
    return cls(**{key: _convert(fields[key][1], value, (*path, key)) for key, value in table.items()})


def _convert(hint: Any, value: Any, path: Path) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        return None if value is None else _convert(_present(hint), value, path)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, path, "key")
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise BadRecord(path, f"{value!r} is not one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        return _tuple(args, value, path)
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, dict), "a table", path)
        found = {key: _convert(args[1], v, (*path, key)) for key, v in value.items()}
        return found if origin is dict else types.MappingProxyType(found)
    if hint is float and type(value) is int:
        _expect(abs(value) < 1 << 1000, "a smaller number", path)
        return float(value)
    if hint is float and isinstance(value, float):
        _expect(math.isfinite(value), "a finite number", path)
    if type(value) is not hint:
        raise BadRecord(path, f"must be of type {hint.__name__}, not {reprlib.repr(value)}")
    return value


def _tuple(args: Sequence[Any], value: Any, path: Path) -> tuple[Any, ...]:
    _expect(isinstance(value, list), "a list", path)
    if args[-1] is Ellipsis:
        args = [args[0]] * len(value)
    _expect(len(value) == len(args), f"a list of {len(args)}", path)
    return tuple(_convert(a, v, (*path, i)) for i, (a, v) in enumerate(zip(args, value, strict=True)))


def _expect(condition: bool, what: str, path: Path) -> None:
    if not condition:
        raise BadRecord(path, f"must be {what}")


def _present(hint: types.UnionType) -> Any:
    """X of X | None."""
    return next(a for a in typing.get_args(hint) if a is not type(None))


def _decode(hint: Any, text: str, option: str) -> Any:
    """The value that a TOML file would have for this text."""
    if isinstance(hint, types.UnionType):
        return None if text == "none" else _decode(_present(hint), text, option)
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return [_decode(args[0], part, option) for part in text.split(",") if part]
    if typing.get_origin(hint) is typing.Literal:
        choices = {_encode(choice): choice for choice in args}
        return _looked_up(choices, text, option, f"not one of {', '.join(choices)}")
    if hint is bool:
        return _looked_up({"true": True, "false": False}, text, option, "neither true nor false")
    if hint is int or hint is float:
        read: Callable[[str], Any] = hint
        try:
            return read(text)
        except ValueError:
            raise BadRecord((option,), f"{text!r} is not {'an integer' if hint is int else 'a number'}") from None
    return text


def _looked_up(words: Mapping[str, Any], text: str, option: str, otherwise: str) -> Any:
    if text not in words:
        raise BadRecord((option,), f"{text!r} is {otherwise}")
    return words[text]


def _encode(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(_encode, value)) if isinstance(value, tuple) else str(value)
