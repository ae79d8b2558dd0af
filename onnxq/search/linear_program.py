"""The integer linear program of HAWQ-V3 (equations 11 to 14): least sensitivity under any set of cost limits.

Eq. 11 minimizes the sum of Ω_i(b_i) subject to limits on size (12), BOPS (13) and latency (14), each a sum over layers.
Here a layer chooses a pair (weight bits, activation bits). A pair's variable is 1 if it is chosen; a layer's variables
for one activation width sum to the variable of that width in its activation group, so that layers that read the same
tensor agree; tied layers have equal sums for each weight width. All of it is linear and exact.

Solved with PuLP: HiGHS if highspy is installed, else the CBC that comes with PuLP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxq.errors import ConfigError, OnnxqError

Pair = tuple[int, int]
# Relative distance from the optimum at which the solver may stop, and its time in seconds: a search must not take
# minutes to prove the last digit of an estimate. LARGE: number of variables from which the wider gap applies.
GAP, GAP_LARGE, LARGE = 1e-6, 1e-3, 1500
TIME_LIMIT = 20.0
# The solver's tolerances are absolute: values are scaled so that their ranges add up to this.
OBJECTIVE_RANGE = 1e4
FEASIBLE = 1e-9


@dataclass(frozen=True)
class Option:
    """One choice. value: predicted loss increase. costs: {name of a cost: amount}."""

    value: float
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A layer. options: by (weight bits, activation bits). tie: layers with the same text share the weight width.

    group: activation group whose width it reads; its widths include this layer's activation widths.
    """

    name: str
    options: Mapping[Pair, Option]
    tie: str
    group: str


@dataclass(frozen=True)
class Problem:
    """groups: {activation group: {bits: option}}. fixed: amounts of costs that no choice changes."""

    choices: tuple[Choice, ...]
    groups: Mapping[str, Mapping[int, Option]]
    fixed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Solution:
    """weights: {layer: bits}. activations: {group: bits}. value: the sum of values.

    optimal: proven, to the relative `gap`. seconds: time to solve.
    """

    weights: Mapping[str, int]
    activations: Mapping[str, int]
    value: float
    optimal: bool
    gap: float
    seconds: float


@dataclass(frozen=True)
class Limit:
    """An upper bound on a cost. label: the user's request, for messages."""

    cost: str
    most: float
    label: str


Describe = Callable[[str, float], str]


def solve(
    problem: Problem, limits: Sequence[Limit] = (), *, describe: Describe | None = None, time_limit: float = TIME_LIMIT
) -> Solution:
    """The assignment with the least value within the limits.

    describe: formats an amount of a cost for messages. Raises ConfigError if no assignment meets the limits (naming the
    infeasible one and the best reachable), or if ties leave a layer without a width.
    """
    started = time.perf_counter()
    spread = _spread(problem)
    program = _Program(problem)
    program.minimise({}, OBJECTIVE_RANGE / spread if spread else 1.0, values=True)
    for limit in limits:
        program.limit(limit)
    status = program.run(time_limit)
    if status == "infeasible":
        raise ConfigError(_why(problem, limits, describe or _plain, time_limit))
    weights, activations = program.chosen()
    total = value_of(problem, weights, activations)
    return Solution(weights, activations, total, status == "optimal", program.gap, time.perf_counter() - started)


def value_of(problem: Problem, weights: Mapping[str, int], activations: Mapping[str, int]) -> float:
    """The sum of values of an assignment."""
    total = sum(c.options[weights[c.name], activations[c.group]].value for c in problem.choices)
    return total + sum(options[activations[g]].value for g, options in problem.groups.items())


def cost_of(problem: Problem, cost: str, weights: Mapping[str, int], activations: Mapping[str, int]) -> float:
    """The amount of one cost of an assignment."""
    total = problem.fixed.get(cost, 0.0)
    total += sum(c.options[weights[c.name], activations[c.group]].costs.get(cost, 0.0) for c in problem.choices)
    return total + sum(options[activations[g]].costs.get(cost, 0.0) for g, options in problem.groups.items())


def least(problem: Problem, cost: str, time_limit: float = TIME_LIMIT) -> float:
    """The least amount of a cost that any assignment reaches. Raises ConfigError as solve does."""
    program = _Program(problem)
    amounts = [o.costs.get(cost, 0.0) for c in problem.choices for o in c.options.values()]
    amounts += [o.costs.get(cost, 0.0) for g in problem.groups.values() for o in g.values()]
    largest = max((abs(a) for a in amounts), default=0.0)
    program.minimise({cost: 1.0}, 1.0 / largest if largest else 1.0)
    if program.run(time_limit) == "infeasible":
        raise ConfigError(_contradiction(problem))
    return cost_of(problem, cost, *program.chosen())


def _spread(problem: Problem) -> float:
    options = [c.options.values() for c in problem.choices] + [g.values() for g in problem.groups.values()]
    return sum(max(o.value for o in group) - min(o.value for o in group) for group in options if group)


def _why(problem: Problem, limits: Sequence[Limit], describe: Describe, time_limit: float) -> str:
    """Which limit cannot be met, and the best reachable."""
    if not limits:
        return _contradiction(problem)
    for limit in limits:
        best = least(problem, limit.cost, time_limit)  # raises if no limit is at fault
        if best > limit.most * (1 + FEASIBLE):
            return (
                f"{limit.label} cannot be met: with these widths the least is {describe(limit.cost, best)}; allow "
                "lower widths, fix fewer layers, or raise the limit"
            )
    factor = _common_factor(problem, limits, time_limit)
    names = " and ".join(dict.fromkeys(limit.label for limit in limits))
    return f"{names} can each be met, but not together: all of them would have to be {100 * (factor - 1):.1f} % higher"


def _common_factor(problem: Problem, limits: Sequence[Limit], time_limit: float) -> float:
    """The smallest factor on all limits with which there is an assignment."""
    program = _Program(problem)
    factor = program.free("factor")
    for limit in limits:
        program.limit(limit, factor)
    program.problem.setObjective(factor)
    program.run(time_limit)
    return float(factor.value())


def _contradiction(problem: Problem) -> str:
    tied: dict[str, list[Choice]] = {}
    for choice in problem.choices:
        tied.setdefault(choice.tie, []).append(choice)
    for members in tied.values():
        widths = [{w for w, _ in c.options} for c in members]
        if not set.intersection(*widths):
            listed = ", ".join(
                f"{c.name} ({'/'.join(map(str, sorted(w)))})" for c, w in zip(members, widths, strict=True)
            )
            return f"these layers must share a width, but have none in common: {listed}"
    return "no assignment satisfies the ties and the fixed widths together"


class _Program:
    """A PuLP problem under construction. Variables: one per pair of a layer and per width of an activation group."""

    def __init__(self, problem: Problem) -> None:
        import pulp

        self.pulp, self.source = pulp, problem
        self.problem = pulp.LpProblem("widths", pulp.LpMinimize)
        self.groups = {
            g: {a: self._binary(f"g{i}_{a}") for a in options} for i, (g, options) in enumerate(problem.groups.items())
        }
        self.pairs = [
            {pair: self._binary(f"x{i}_{pair[0]}_{pair[1]}") for pair in c.options}
            for i, c in enumerate(problem.choices)
        ]
        for widths in self.groups.values():
            self.problem += pulp.lpSum(widths.values()) == 1
        ties: dict[str, int] = {}
        for i, choice in enumerate(problem.choices):
            by_activation: dict[int, list[Any]] = {a: [] for a in self.groups[choice.group]}
            for (_, a), variable in self.pairs[i].items():
                by_activation[a].append(variable)
            for a, variables in by_activation.items():
                self.problem += pulp.lpSum(variables) == self.groups[choice.group][a]
            first = ties.setdefault(choice.tie, i)
            if first != i:
                self._tie(first, i)

    @property
    def gap(self) -> float:
        """The relative gap to the optimum at which the solver may stop."""
        return GAP_LARGE if sum(map(len, self.pairs)) > LARGE else GAP

    def _binary(self, name: str) -> Any:
        return self.pulp.LpVariable(name, cat="Binary")

    def _tie(self, first: int, second: int) -> None:
        for bits in sorted({w for pairs in (self.pairs[first], self.pairs[second]) for w, _ in pairs}):
            sides = [[v for (w, _), v in self.pairs[i].items() if w == bits] for i in (first, second)]
            self.problem += self.pulp.lpSum(sides[0]) == self.pulp.lpSum(sides[1])

    def free(self, name: str) -> Any:
        return self.pulp.LpVariable(name, lowBound=0)

    def minimise(self, costs: Mapping[str, float], scale: float, values: bool = False) -> None:
        """Sum of scale · (value if values, plus costs[c] · amount of c)."""
        terms = []
        for option, variable in self._each():
            weight = scale * (
                (option.value if values else 0.0) + sum(f * option.costs.get(c, 0.0) for c, f in costs.items())
            )
            terms.append((variable, weight))
        self.problem.setObjective(self.pulp.LpAffineExpression(terms))

    def limit(self, limit: Limit, factor: Any = None) -> None:
        """Σ amounts ≤ limit, or ≤ factor · limit; both over the limit, as the solver's tolerances are absolute."""
        unit = max(abs(limit.most), FEASIBLE)
        terms = [(v, o.costs[limit.cost] / unit) for o, v in self._each() if o.costs.get(limit.cost)]
        start = self.source.fixed.get(limit.cost, 0.0) / unit
        bound = limit.most / unit if factor is None else factor
        self.problem += self.pulp.LpAffineExpression(terms) + start <= bound

    def _each(self) -> list[tuple[Option, Any]]:
        found = [
            (c.options[p], v)
            for c, pairs in zip(self.source.choices, self.pairs, strict=True)
            for p, v in pairs.items()
        ]
        return found + [(self.source.groups[g][a], v) for g, widths in self.groups.items() for a, v in widths.items()]

    def run(self, time_limit: float) -> str:
        """Solve; returns "optimal", "stopped" (with the best found so far) or "infeasible"."""
        status = self.problem.solve(_solver(self.pulp, self.gap, time_limit))
        if self.problem.sol_status == self.pulp.LpSolutionOptimal:
            return "optimal"
        if self.problem.sol_status == self.pulp.LpSolutionIntegerFeasible:
            return "stopped"
        if status == self.pulp.LpStatusInfeasible:
            return "infeasible"
        raise OnnxqError(
            f"the solver found no assignment in {time_limit:g} s ({self.pulp.LpStatus[status]}); loosen the limits"
        )

    def chosen(self) -> tuple[dict[str, int], dict[str, int]]:
        """({layer: weight bits}, {group: activation bits})."""
        weights = {
            c.name: max(pairs, key=lambda p: pairs[p].value() or 0.0)[0]
            for c, pairs in zip(self.source.choices, self.pairs, strict=True)
        }
        return weights, {g: max(w, key=lambda a: w[a].value() or 0.0) for g, w in self.groups.items()}


def _solver(pulp: Any, gap: float, time_limit: float) -> Any:
    if "HiGHS" in pulp.listSolvers(onlyAvailable=True):
        return pulp.HiGHS(msg=False, gapRel=gap, timeLimit=time_limit)
    return pulp.PULP_CBC_CMD(msg=False, gapRel=gap, timeLimit=time_limit, options=["increment 1e-9"])


def _plain(cost: str, amount: float) -> str:
    return f"{amount:g} ({cost})"


__all__ = ["Choice", "Limit", "Option", "Problem", "Solution", "cost_of", "least", "solve", "value_of"]
