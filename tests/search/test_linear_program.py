"""The integer program against brute force, and what it says when nothing fits."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.errors import ConfigError
from onnxq.search.linear_program import Choice, Limit, Option, Problem, cost_of, least, solve, value_of

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
AMOUNT = st.integers(0, 1000).map(float)


def brute_force(problem: Problem, limits: list[Limit]) -> float | None:
    """The least value of all assignments."""
    best = None
    groups = list(problem.groups)
    ties = list(dict.fromkeys(c.tie for c in problem.choices))
    widths = sorted({w for c in problem.choices for w, _ in c.options})
    for chosen in itertools.product(*(problem.groups[g] for g in groups)):
        activations = dict(zip(groups, chosen, strict=True))
        for of_tie in itertools.product(widths, repeat=len(ties)):
            weights = {c.name: of_tie[ties.index(c.tie)] for c in problem.choices}
            if any((weights[c.name], activations[c.group]) not in c.options for c in problem.choices):
                continue
            if any(cost_of(problem, x.cost, weights, activations) > x.most * (1 + 1e-9) for x in limits):
                continue
            value = value_of(problem, weights, activations)
            best = value if best is None else min(best, value)
    return best


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 5))
    widths = draw(st.sampled_from([(4, 8), (2, 4, 8)]))
    groups = {
        f"g{i}": {a: Option(draw(AMOUNT) / 7, {"bytes": draw(AMOUNT)}) for a in draw(st.sampled_from([(8,), (4, 8)]))}
        for i in range(draw(st.integers(1, 3)))
    }
    choices = []
    for i in range(count):
        group = draw(st.sampled_from(sorted(groups)))
        options = {
            (w, a): Option(draw(AMOUNT) / 3, {"bytes": draw(AMOUNT), "time": draw(AMOUNT)})
            for w in widths
            for a in groups[group]
        }
        choices.append(Choice(f"l{i}", options, f"t{draw(st.integers(0, count - 1))}", group))
    return Problem(tuple(choices), groups, {"bytes": draw(AMOUNT)})


@given(problems(), st.floats(0.1, 1.2), st.floats(0.1, 1.2))
@settings(max_examples=40, deadline=None)
def test_as_good_as_brute_force(problem, size, time):
    most = {
        c: problem.fixed.get(c, 0.0)
        + sum(max(o.costs[c] for o in x.options.values()) for x in problem.choices)
        + sum(max(o.costs.get(c, 0.0) for o in g.values()) for g in problem.groups.values())
        for c in ("bytes", "time")
    }
    limits = [Limit("bytes", size * most["bytes"], "bytes"), Limit("time", time * most["time"], "time")]
    best = brute_force(problem, limits)
    if best is None:
        with pytest.raises(ConfigError, match=r"cannot be met|not together"):
            solve(problem, limits)
        return
    found = solve(problem, limits)
    assert found.optimal
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert found.value == pytest.approx(value_of(problem, found.weights, found.activations))
    for limit in limits:
        assert cost_of(problem, limit.cost, found.weights, found.activations) <= limit.most * (1 + 1e-6) + 1e-9
    widths = {c.tie: {found.weights[x.name] for x in problem.choices if x.tie == c.tie} for c in problem.choices}
    assert all(len(w) == 1 for w in widths.values())


def layers(*tables: dict[int, tuple[float, float]]) -> Problem:
    """One choice a table: {bits: (value, bytes)}."""
    choices = [
        Choice(f"l{i}", {(w, 8): Option(v, {"size": b}) for w, (v, b) in t.items()}, f"l{i}", "g")
        for i, t in enumerate(tables)
    ]
    return Problem(tuple(choices), {"g": {8: Option(0.0)}})


def test_values_of_very_different_sizes_are_told_apart():
    """Sensitivities span many orders of magnitude; the solver's tolerances are absolute."""
    tables = [{4: (10.0**-k, 4.0), 8: (0.0, 8.0)} for k in range(9)]
    found = solve(layers(*tables), [Limit("size", 8 * 9 - 4 * 4, "size")])
    assert [found.weights[f"l{k}"] for k in range(9)] == [8] * 5 + [4] * 4


def test_a_limit_that_cannot_be_met_is_named_with_the_best():
    problem = layers({4: (1, 40), 8: (0, 80)}, {4: (1, 4), 8: (0, 8)})
    with pytest.raises(ConfigError, match=r"--max-size 43 B cannot be met: .* the least is 44 \(size\)"):
        solve(problem, [Limit("size", 43, "--max-size 43 B")])
    assert least(problem, "size") == 44


def test_limits_that_contradict_each_other_are_named_together():
    options = {(4, 8): Option(0, {"a": 2, "b": 1}), (8, 8): Option(0, {"a": 1, "b": 2})}
    problem = Problem((Choice("l", options, "l", "g"),), {"g": {8: Option(0.0)}})
    with pytest.raises(ConfigError, match=re.escape("A and B can each be met, but not together")) as caught:
        solve(problem, [Limit("a", 1, "A"), Limit("b", 1, "B")])
    assert "100.0 % higher" in str(caught.value)


def test_ties_without_a_common_width_are_named():
    four, eight = ({(w, 8): Option(0.0)} for w in (4, 8))
    problem = Problem((Choice("a", four, "t", "g"), Choice("b", eight, "t", "g")), {"g": {8: Option(0.0)}})
    with pytest.raises(ConfigError, match=r"must share a width, .*: a \(4\), b \(8\)"):
        solve(problem)
