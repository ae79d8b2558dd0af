"""Regular expressions for names of nodes, matched in time linear in the name: a pattern may come from anywhere.

The syntax is that of Python without back-references, look-around and word boundaries (RE2 lacks the first two as well).
A pattern becomes a nondeterministic automaton; its sets of states are cached, so that a step is a look-up.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

MAX_LENGTH = 1000  # characters of a pattern
MAX_STATES = 10_000  # of its automaton: a{1000} has a thousand
MAX_SETS = 4096  # of states, kept for the next name

START, END = "^", "$"
FLAGS = re.IGNORECASE | re.DOTALL | re.UNICODE | re.VERBOSE
Test = Callable[[str], bool]
_CATEGORIES: dict[str, Test] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda c: c.isalnum() or c == "_",
}


class BadPatternError(ValueError):
    """Not a regular expression, or one that cannot be matched in linear time."""


class Pattern:
    """A compiled pattern. Raises BadPatternError."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise BadPatternError(f"a pattern of more than {MAX_LENGTH} characters")
        # Python's own parser, so that the syntax is the same; its name is private, its tree has been stable since 3.11.
        parser: Any = importlib.import_module("re._parser")
        try:
            tree = parser.parse(text)
        except (re.error, OverflowError) as err:
            raise BadPatternError(str(err)) from None
        except RecursionError:
            raise BadPatternError("nested too deep") from None
        if tree.state.flags & ~FLAGS:
            raise BadPatternError("of flags, only i, s and x are supported")
        self._ignore_case = bool(tree.state.flags & re.IGNORECASE)
        self._dot_all = bool(tree.state.flags & re.DOTALL)
        # Of a character that leads from a state to the next; None: an empty step, START and END: possible only there.
        self._tests: list[Test | str | None] = []
        self._next: list[list[int]] = []
        start = self._state()
        self._final = self._sequence(tree, start)
        self._sets: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._start = self._closure([start], START)

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        states = self._start
        for character in name:
            key = (states, character)
            found = self._sets.get(key)
            if found is None:
                found = self._closure(n for s in states for n in self._step(s, character))
                if len(self._sets) >= MAX_SETS:
                    self._sets.clear()
                self._sets[key] = found
            states = found
            if not states:
                return False
        return self._final in self._closure(states, END if name else START + END)

    def _step(self, state: int, character: str) -> list[int]:
        test = self._tests[state]
        return self._next[state] if callable(test) and test(character) else []

    def _closure(self, states: Iterable[int], where: str = "") -> frozenset[int]:
        """The states reached by empty steps. where: START, END or both, if the name begins or ends here."""
        seen = set(states)
        left = list(seen)
        while left:
            state = left.pop()
            test = self._tests[state]
            if test is None or (isinstance(test, str) and test in where):
                for other in self._next[state]:
                    if other not in seen:
                        seen.add(other)
                        left.append(other)
        return frozenset(seen)

    def _state(self) -> int:
        if len(self._tests) >= MAX_STATES:
            raise BadPatternError(f"more than {MAX_STATES} repetitions")
        self._tests.append(None)
        self._next.append([])
        return len(self._tests) - 1

    def _sequence(self, items: Iterable[Any], state: int) -> int:
        """Append the automaton of consecutive items to a state; returns its last state."""
        for op, value in items:
            state = self._item(str(op), value, state)
        return state

    def _item(self, op: str, value: Any, state: int) -> int:
        if op == "SUBPATTERN":
            _, added, removed, inside = value
            if added or removed:
                raise BadPatternError("flags for a part of the pattern are not supported")
            return self._sequence(inside, state)
        if op == "BRANCH":
            end = self._state()
            for branch in value[1]:
                first = self._state()
                self._next[state].append(first)
                self._next[self._sequence(branch, first)].append(end)
            return end
        if op in ("MAX_REPEAT", "MIN_REPEAT"):  # which of several matches it is makes no difference here
            least, most, inside = value
            return self._repeat(least, most, inside, state)
        test = _anchor(str(value)) if op == "AT" else self._test(op, value)
        end = self._state()
        self._tests[state], self._next[state] = test, [end]
        return self._through(end)

    def _through(self, state: int) -> int:
        """A fresh state behind one, from which other items may start."""
        after = self._state()
        self._next[state].append(after)
        return after

    def _repeat(self, least: int, most: Any, items: Any, state: int) -> int:
        for _ in range(least):
            state = self._sequence(items, state)
            state = self._through(state)
        if str(most) == "MAXREPEAT":
            first, end = self._through(state), self._state()
            last = self._sequence(items, self._through(first))
            self._next[last].append(first)
            self._next[first].append(end)
            return end
        end = self._state()
        for _ in range(least, int(most)):
            self._next[state].append(end)
            state = self._through(self._sequence(items, self._through(state)))
        self._next[state].append(end)
        return end

    def _test(self, op: str, value: Any) -> Test:
        if op == "ANY":
            return (lambda _c: True) if self._dot_all else (lambda c: c != "\n")
        if op == "LITERAL":
            return self._folded(lambda c: ord(c) == value)
        if op == "NOT_LITERAL":
            equal = self._folded(lambda c: ord(c) == value)
            return lambda c: not equal(c)
        if op == "IN":
            negated = str(value[0][0]) == "NEGATE"
            tests = [self._member(str(kind), what) for kind, what in value[negated:]]
            inside = self._folded(lambda c: any(test(c) for test in tests))
            return (lambda c: not inside(c)) if negated else inside
        raise BadPatternError("back-references, look-around and possessive repeats are not supported")

    def _member(self, kind: str, what: Any) -> Test:
        if kind == "LITERAL":
            return lambda c: ord(c) == what
        if kind == "RANGE":
            return lambda c: what[0] <= ord(c) <= what[1]
        name = str(what).removeprefix("CATEGORY_")
        test = _CATEGORIES[name.removeprefix("NOT_")]
        return (lambda c: not test(c)) if name.startswith("NOT_") else test

    def _folded(self, test: Test) -> Test:
        if not self._ignore_case:
            return test
        return lambda c: any(test(v) for v in (c, c.lower(), c.upper()) if len(v) == 1)


def _anchor(where: str) -> str:
    if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return START
    if where in ("AT_END", "AT_END_STRING"):
        return END
    raise BadPatternError("word boundaries are not supported")


@lru_cache(maxsize=256)
def compile_pattern(text: str) -> Pattern:
    """The pattern, compiled once. Raises BadPatternError."""
    return Pattern(text)


def full_match(pattern: str, name: str) -> bool:
    """Whether a pattern matches the whole name. Raises BadPatternError."""
    return compile_pattern(pattern).matches(name)
