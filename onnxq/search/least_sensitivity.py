"""The assignment of least sensitivity within limits, and the Pareto front along one cost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxq.errors import ConfigError
from onnxq.search.inputs import LimitTexts
from onnxq.search.limits import COSTS, MAP_COSTS, ROUNDING, format_cost
from onnxq.search.linear_program import Limit, Problem, Solution, least, solve
from onnxq.search.result import SearchResult, result_of
from onnxq.search.sensitivity import Sensitivity
from onnxq.search.space import Assignment, Space

TIGHTENINGS = 6  # of limits on feature maps
REFINED = 1e-6  # relative distance below a point of the front at which the next is sought


def search_ilp(space: Space, sensitivity: Sensitivity, limits: LimitTexts | None = None) -> SearchResult:
    """The assignment of least sensitivity within the limits. Raises ConfigError if they cannot be met."""
    wanted = space.limits(limits or {})
    found, solution = _solve(space, sensitivity, wanted)
    notes = [] if solution.optimal else ["the solver stopped at its time limit: there may be a better assignment"]
    if space.same and not sensitivity.of("activations"):
        notes.append("activations follow the weights' widths; their own sensitivity is not counted (HAWQ-V3)")
    return result_of(
        space,
        found,
        "ilp",
        wanted,
        sensitivity=sensitivity,
        value=solution.value,
        optimal=solution.optimal,
        seconds=solution.seconds,
        notes=notes,
    )


def _solve(space: Space, sensitivity: Sensitivity, limits: Sequence[Limit]) -> tuple[Assignment, Solution]:
    """The best assignment. The program does not know of residuals that are kept in 16 bits: where they break a limit on
    feature maps, it is solved again with a lower one."""
    lower = list(limits)
    over: set[int] = set()
    for _ in range(TIGHTENINGS):
        try:
            found, solution = _solve_program(space, sensitivity, lower)
        except ConfigError:
            if not over:
                raise
            break
        totals = space.totals(found)
        over = {k for k, limit in enumerate(limits) if limit.cost in MAP_COSTS and totals[limit.cost] > limit.most}
        if not over:
            return found, solution
        for k in over:
            lower[k] = dataclasses.replace(lower[k], most=lower[k].most * limits[k].most / totals[limits[k].cost])
    names = ", ".join(limits[k].label for k in sorted(over))
    kept = space.prepared.profile.graph.residual_kept
    raise ConfigError(
        f"{names} cannot be met: beside layers below 8 bits, profile {space.prepared.profile.name} keeps residuals in "
        f'{kept}; raise the limit, allow 8 bits only, or use a profile with residual_kept = "int8"'
    )


def _solve_program(space: Space, sensitivity: Sensitivity, limits: Sequence[Limit]) -> tuple[Assignment, Solution]:
    memory = [cost for cost in MAP_COSTS if any(limit.cost == cost for limit in limits)]
    problem = space.problem(sensitivity, memory)

    def describe(cost: str, amount: float) -> str:
        return format_cost(cost.split(maxsplit=1)[0], amount, space.costs.baseline())

    solution = solve(problem, space.expand(limits), describe=describe)
    activations = {g: bits for g, bits in solution.activations.items() if g}
    return space.assignment(solution.weights, activations), solution


@dataclass(frozen=True)
class Front:
    """Results along one cost, from the least reachable to int8, without dominated ones."""

    cost: str
    results: tuple[SearchResult, ...]


def pareto(
    space: Space,
    sensitivity: Sensitivity,
    cost: str = "size",
    points: int = 25,
    limits: LimitTexts | None = None,
) -> Front:
    """Solve for `points` limits on one cost, evenly spaced from the least reachable to the most; other limits apply.

    Raises ConfigError for an unknown cost, or other limits that cannot be met.
    """
    if points < 2:
        raise ConfigError(f"{points} points: a front needs at least two")
    space.limits({cost: "100%"})  # raises if the cost is unknown
    others = {k: v for k, v in (limits or {}).items() if k != cost}
    wanted = space.limits(others)
    free, _ = _solve(space, sensitivity, wanted)
    most = space.totals(free)[cost]
    memory = [c for c in MAP_COSTS if c == cost or any(limit.cost == c for limit in wanted)]
    problem = space.problem(sensitivity, memory)
    lowest = _least_total(space, problem, cost)

    def at(amount: float) -> SearchResult | None:
        limit = Limit(cost, amount, f"{COSTS[cost].option} {format_cost(cost, amount)}")
        try:
            chosen, solution = _solve(space, sensitivity, [*wanted, limit])
        except ConfigError:
            return None  # infeasible with the other limits
        return result_of(
            space,
            chosen,
            "ilp",
            [*wanted, limit],
            sensitivity=sensitivity,
            value=solution.value,
            optimal=solution.optimal,
            seconds=solution.seconds,
        )

    steps = (lowest + (most - lowest) * step / (points - 1) for step in range(points))
    found = _undominated([r for amount in steps if (r := at(amount * (1 + ROUNDING))) is not None], cost)
    return Front(cost, tuple(_refined(found, cost, points, at)))


def _refined(
    found: list[SearchResult], cost: str, points: int, at: Callable[[float], SearchResult | None]
) -> list[SearchResult]:
    """More points where several limits gave the same result: in the widest gaps, the one just below the upper end."""
    closed: set[float] = set()
    while len(found) < points:
        gaps = [
            (high.predicted[cost] - low.predicted[cost], high.predicted[cost])
            for low, high in itertools.pairwise(found)
            if high.predicted[cost] not in closed
        ]
        if not gaps:
            break
        upper = max(gaps)[1]
        closed.add(upper)
        more = at(upper * (1 - REFINED))
        if more is not None:
            found = _undominated([*found, more], cost)
    return found


def _least_total(space: Space, problem: Problem, cost: str) -> float:
    maps = space.costs.maps
    if cost not in ("peak", "largest") or maps is None:
        return least(problem, cost)
    narrowest = {g.name: min(space.group_widths(g.name)) for g in space.costs.groups}
    return float(maps.peak(narrowest) if cost == "peak" else maps.largest(narrowest))


def _undominated(results: Sequence[SearchResult], cost: str) -> list[SearchResult]:
    """Ascending in cost, strictly descending in value."""
    ordered = sorted(results, key=lambda r: (r.predicted[cost], r.value or 0.0))
    lowest = itertools.accumulate((r.value or 0.0 for r in ordered), min)
    before = itertools.chain([float("inf")], lowest)
    return [r for r, known in zip(ordered, before, strict=False) if (r.value or 0.0) < known]


__all__ = ["Front", "pareto", "search_ilp"]
