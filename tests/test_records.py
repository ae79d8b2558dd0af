"""One engine reads profiles, cards and options: what it accepts, and where its messages point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.records import BadRecord, build, parse_options, plain, print_options, suggest, toml_line


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] | None = None
    inner: tuple[Inner, ...] = ()
    named: Mapping[str, Inner] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


FULL = {
    "name": "x",
    "kind": "b",
    "pair": [1, 2],
    "inner": [{"count": 1}, {"count": 2, "share": 1}],
    "named": {"k": {"count": 3, "share": 0.25}},
    "extra": {"anything": [1, None]},
}


def test_a_table_is_built_and_printed_back() -> None:
    made = build(Outer, FULL)
    assert made == Outer("x", "b", (1, 2), (Inner(1), Inner(2, 1.0)), {"k": Inner(3, 0.25)}, {"anything": [1, None]})
    assert build(Outer, plain(made)) == made
    assert plain({"a": math.nan, "b": (math.inf, 1.0)}) == {"a": None, "b": [None, 1.0]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "must be a table"),
        ({}, "key 'name' is missing"),
        ({"name": 1}, "name: must be of type str, not 1"),
        ({"name": "x", "knid": "a"}, "knid: unknown key 'knid'; did you mean kind?"),
        ({"name": "x", "zz": 1}, "zz: unknown key 'zz' (known: name, kind, pair, inner, named, extra)"),
        ({"name": "x", "kind": "c"}, "kind: 'c' is not one of 'a', 'b'"),
        ({"name": "x", "pair": [1]}, "pair: must be a list of 2"),
        ({"name": "x", "inner": {}}, "inner: must be a list"),
        ({"name": "x", "inner": [{"count": 1}, {"count": True}]}, "inner[1].count: must be of type int, not True"),
        ({"name": "x", "inner": [{"count": 1, "share": "1"}]}, "inner[0].share: must be of type float, not '1'"),
        ({"name": "x", "named": {"k": {}}}, "named.k: key 'count' is missing"),
    ],
)
def test_messages_name_the_place(table: Any, message: str) -> None:
    with pytest.raises(BadRecord) as caught:
        build(Outer, table)
    assert str(caught.value) == message


@dataclass(frozen=True)
class Options:
    bits: int | None = None
    keep_float: bool = False
    percent: float = 99.99
    names: tuple[str, ...] = ()
    form: Literal["auto", "fixed"] = "auto"


@given(
    st.builds(
        Options,
        bits=st.none() | st.integers(),
        percent=st.floats(allow_nan=False, allow_infinity=False),
        names=st.lists(st.from_regex(r"[^,]+", fullmatch=True)).map(tuple),
    )
)
def test_options_are_parsed_from_what_is_printed(options: Options) -> None:
    assert parse_options(Options, print_options(options)) == options


def test_options_in_text() -> None:
    assert print_options(Options()) == {}
    assert print_options(Options(4, True)) == {"bits": "4", "keep_float": "true"}
    assert parse_options(Options, {"keep-float": "true", "bits": "none"}) == Options(keep_float=True)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"bits": "x"}, "bits: 'x' is not an integer"),
        ({"percent": "x"}, "percent: 'x' is not a number"),
        ({"keep-float": "yes"}, "keep-float: 'yes' is neither true nor false"),
        ({"form": "c"}, "form: 'c' is not one of auto, fixed"),
        ({"bit": "4"}, "unknown option 'bit'; did you mean bits?"),
    ],
)
def test_options_that_do_not_parse(texts: dict[str, str], message: str) -> None:
    with pytest.raises(BadRecord) as caught:
        parse_options(Options, texts)
    assert str(caught.value) == message


def test_suggestions_and_lines() -> None:
    assert suggest("entrpy", ["mse", "entropy"]) == "; did you mean entropy?"
    assert suggest("x", []) == " (known: none)"
    assert toml_line("a = 1\n[t]\nb = [1, 2]\n", ("t", "b", 1)) == 3
    assert toml_line("a = 1\n", ("c",)) is None
