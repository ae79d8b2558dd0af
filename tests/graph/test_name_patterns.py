"""Patterns for names mean what they mean to Python's re, and take linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.graph.name_patterns import BadPatternError, full_match

ATOMS = st.sampled_from(
    ["a", "b", "/", r"\.", ".", r"\d", r"\w", r"\D", "[ab]", "[^a]", "[a-c1]", r"[\d_]", "^", "$", "", "(?:)", "é"]
)
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?", "??"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    sequence = st.lists(inner, max_size=3).map("".join)
    branch = st.lists(sequence, min_size=1, max_size=3).map("|".join)
    return st.tuples(branch, REPEATS).map(lambda p: f"(?:{p[0]}){p[1]}")


PATTERNS = st.recursive(st.tuples(ATOMS, REPEATS).map("".join), combined, max_leaves=8)
NAMES = st.text("ab/.1_cé\n", max_size=8)


def reference(pattern: str, name: str) -> bool | None:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return None


@given(PATTERNS, st.lists(NAMES, max_size=6), st.sampled_from(["", "(?i)", "(?s)"]))
def test_as_python_matches(pattern: str, names: list[str], flags: str) -> None:
    for name in names:
        expected = reference(flags + pattern, name)
        if expected is None:
            with pytest.raises(BadPatternError):
                full_match(flags + pattern, name)
        else:
            assert full_match(flags + pattern, name) == expected, (flags + pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("/layer[0-9]+/conv", "/layer12/conv", True),
        ("layer.*", "layer", True),
        (r"features\.(0|18)\..*", "features.18.weight", True),
        ("^stem.*$", "stem/conv", True),
        ("(?i)CONV_1", "conv_1", True),
        ("conv|gemm", "conv|gemm", False),
        ("conv", "conv1", False),
        ("(a)(b)?", "a", True),
        ("", "", True),
        ("x{3}", "xxxx", False),
    ],
)
def test_usual_patterns(pattern: str, name: str, expected: bool) -> None:
    assert full_match(pattern, name) is expected


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*)*.*=", "(a|aa)+$b", "((a{1,20}){1,20}){1,2}b", "(x+x+)+y"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.process_time()
    for name in ("a" * 20_000, "x" * 20_000, "aX" * 10_000):
        full_match(pattern, name)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "unterminated"),
        ("[z-a]", "bad character range"),
        (r"(a)\1", "not supported"),
        ("(?=a)a", "not supported"),
        ("(?!a)b", "not supported"),
        (r"\ba", "not supported"),
        ("(?m)a", "flags"),
        ("(?i:a)", "flags"),
        ("a*+", "not supported"),
        ("a{100000}", "repetitions"),
        ("((a{100}){100}){100}", "repetitions"),
        ("a{9999999999999999999999}", "repet"),
        ("a" * 2000, "characters"),
        ("(" * 400 + ")" * 400, ""),
    ],
)
def test_what_is_no_pattern(pattern: str, why: str) -> None:
    if why:
        with pytest.raises(BadPatternError, match=why):
            full_match(pattern, "a")
    else:
        assert full_match(pattern, "")
