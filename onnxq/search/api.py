"""Choosing widths in one call: MixQuant from the weights alone, or the integer linear program on sensitivities."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxq.cost.latency_table import load_latencies
from onnxq.cost.prepared import Source
from onnxq.errors import ConfigError
from onnxq.search import ilp, mixquant
from onnxq.search.ilp import Limit
from onnxq.search.limits import COSTS, format_cost
from onnxq.search.result import LayerChoice, SearchResult
from onnxq.search.sensitivity import Sensitivity, load_sensitivity
from onnxq.search.space import Assignment, Space, make_space

Method = Literal["mixquant", "ilp"]
LimitTexts = Mapping[str, str | float | Sequence[str | float] | None]
WIDTHS: dict[str, tuple[int, ...]] = {"mixquant": mixquant.WIDTHS, "ilp": (4, 8)}
DEFAULT_QEM = 2.0
ROUNDING = 1e-9
REFINED = 1e-6  # how far below a point of the front the next one is looked for


def search_bits(
    source: Source,
    method: Method,
    *,
    sensitivity: Sensitivity | str | Path | None = None,
    bits: Sequence[int] | None = None,
    limits: LimitTexts | None = None,
    qem: float | None = None,
    quantizer: str = mixquant.DEFAULT_QUANTIZER,
    reading: mixquant.Reading = "lowest",
    **space: Any,
) -> SearchResult:
    """Choose the width of every layer.

    source: float model. method: "mixquant" or "ilp". sensitivity: for "ilp", of the same model. bits: weight widths to
    choose from; None is 2 to 8 for mixquant, 4 and 8 for ilp. limits: {"size" | "bops" | "latency" | "peak" |
    "average": "3MB" or "60%" of int8, or several}. qem, quantizer, reading: of mixquant; with limits and no qem the
    least QEM that meets them. space: profile, activation_bits, first_last_bits, fixed, ties, tie_blocks, exclude,
    latency, shapes (make_space).
    Raises ConfigError for limits that cannot be met, naming the one at fault, and for whatever contradicts the model.
    """
    if method not in WIDTHS:
        raise ConfigError(f"method {method!r}: {', '.join(WIDTHS)} choose widths without data (partial needs some)")
    if isinstance(space.get("latency"), (str, Path)):
        space["latency"] = load_latencies(space["latency"])
    made = make_space(source, bits=WIDTHS[method] if bits is None else bits, **space)
    if method == "mixquant":
        table = mixquant.error_table(made.prepared, quantizer, made.weight_bits)
        return search_mixquant(made, table, qem, reading=reading, limits=limits)
    if sensitivity is None:
        raise ConfigError("method ilp needs sensitivities: give the file of `onnxq sensitivity` (--sensitivity)")
    return search_ilp(made, read_sensitivity(sensitivity, made), limits)


def read_sensitivity(source: Sensitivity | str | Path, space: Space) -> Sensitivity:
    """A sensitivity file, checked to be of the space's model. Raises ConfigError."""
    model = space.prepared.model
    if isinstance(source, Sensitivity):
        source.require_model(model.sha256, model.name)
        return source
    return load_sensitivity(source, model.sha256)


def search_ilp(space: Space, sensitivity: Sensitivity, limits: LimitTexts | None = None) -> SearchResult:
    """The assignment of least sensitivity within the limits. Raises ConfigError as search_bits does."""
    wanted = space.limits(limits or {})
    found, solution = _solve(space, sensitivity, wanted)
    notes = [] if solution.optimal else ["the solver was stopped by its time limit: there may be a better assignment"]
    if space.same and not sensitivity.of("activations"):
        notes.append("activations follow the weights' widths; their own sensitivity is not counted (HAWQ-V3)")
    return _result(
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


def _solve(space: Space, sensitivity: Sensitivity, limits: Sequence[Limit]) -> tuple[Assignment, ilp.Solution]:
    memory = [cost for cost in ("peak", "average") if any(limit.cost == cost for limit in limits)]
    problem = space.problem(sensitivity, memory)

    def describe(cost: str, amount: float) -> str:
        return format_cost(cost.split(maxsplit=1)[0], amount, space.costs.baseline())

    solution = ilp.solve(problem, space.expand(limits), describe=describe)
    activations = {g: bits for g, bits in solution.activations.items() if g}
    return space.assignment(solution.weights, activations), solution


def search_mixquant(
    space: Space,
    table: mixquant.ErrorTable,
    qem: float | None = None,
    *,
    reading: mixquant.Reading = "lowest",
    limits: LimitTexts | None = None,
) -> SearchResult:
    """MixQuant with one QEM, or with limits and none the least QEM that meets them; many calls share one error table.

    Raises ConfigError where the limits cannot be met.
    """
    if space.searches_activations:
        raise ConfigError("MixQuant chooses weight widths only: leave the activations at 8 bits")
    started = time.perf_counter()
    wanted = space.limits(limits or {})
    if qem is None and wanted:
        qem = _least_qem(space, table, reading, wanted)
    used = DEFAULT_QEM if qem is None else qem
    found = space.assignment(
        _tied(space, mixquant.choose(table, used, space.weight_bits, reading=reading, fixed=space.fixed))
    )
    totals = space.totals(found)
    for limit in wanted:
        if totals[limit.cost] > limit.most * (1 + ROUNDING):
            reached = format_cost(limit.cost, totals[limit.cost], space.costs.baseline())
            raise ConfigError(f"{limit.label} is not met with QEM {used:g}: it gives {reached}; raise the QEM")
    notes = []
    grid = [n for n in table.errors if table.relative(n, max((b for b in space.weight_bits if b < 8), default=8)) > 1e3]
    if grid:
        notes.append(
            f"the weights of {len(grid)} layers lie on an 8-bit grid already ({grid[0]}…): "
            "their error at 8 bits says little"
        )
    return _result(
        space,
        found,
        "mixquant",
        wanted,
        values=table.errors,
        parameters={"qem": used, "quantizer": table.quantizer, "reading": reading},
        seconds=time.perf_counter() - started + table.seconds,
        notes=notes,
    )


def _tied(space: Space, weights: Mapping[str, int]) -> dict[str, int]:
    """Layers that share a width take the widest that MixQuant gives one of them."""
    widest: dict[str, int] = {}
    for name, bits in weights.items():
        widest[space.ties[name]] = max(bits, widest.get(space.ties[name], 0))
    return {name: widest[space.ties[name]] for name in weights}


def _least_qem(space: Space, table: mixquant.ErrorTable, reading: mixquant.Reading, limits: Sequence[Limit]) -> float:
    """Costs fall with the QEM, so the least one is found by bisection among those where the choice changes."""
    points = mixquant.thresholds(table, space.weight_bits)
    points = [p * (1 + ROUNDING) for p in points]

    def excess(qem: float) -> list[Limit]:
        weights = mixquant.choose(table, qem, space.weight_bits, reading=reading, fixed=space.fixed)
        totals = space.totals(space.assignment(_tied(space, weights)))
        return [limit for limit in limits if totals[limit.cost] > limit.most * (1 + ROUNDING)]

    if missed := excess(points[-1]):
        weights = mixquant.choose(table, points[-1], space.weight_bits, reading=reading, fixed=space.fixed)
        best = space.totals(space.assignment(_tied(space, weights)))[missed[0].cost]
        told = format_cost(missed[0].cost, best, space.costs.baseline())
        raise ConfigError(f"{missed[0].label} cannot be met: with these widths and any QEM the least is {told}")
    low, high = 0, len(points) - 1
    while low < high:
        middle = (low + high) // 2
        if excess(points[middle]):
            low = middle + 1
        else:
            high = middle
    return points[low]


@dataclass(frozen=True)
class Front:
    """Results along one cost, from the least that can be reached to int8, without those that another one beats."""

    cost: str
    results: tuple[SearchResult, ...]


def pareto(
    space: Space,
    sensitivity: Sensitivity,
    cost: str = "size",
    points: int = 25,
    limits: LimitTexts | None = None,
) -> Front:
    """Solve for `points` limits on one cost, evenly from the least reachable to the most; the others stay as given.

    Raises ConfigError for a cost that is not known, or other limits that cannot be met.
    """
    if points < 2:
        raise ConfigError(f"{points} points: a front needs two at least")
    space.limits({cost: "100%"})  # raises where the cost is not known
    others = {k: v for k, v in (limits or {}).items() if k != cost}
    wanted = space.limits(others)
    free, _ = _solve(space, sensitivity, wanted)
    most = space.totals(free)[cost]
    memory = [c for c in ("peak", "average") if c == cost or any(limit.cost == c for limit in wanted)]
    problem = space.problem(sensitivity, memory)
    least = _least_total(space, problem, cost)

    def at(amount: float) -> SearchResult | None:
        limit = Limit(cost, amount, f"{COSTS[cost][2]} {format_cost(cost, amount)}")
        try:
            chosen, solution = _solve(space, sensitivity, [*wanted, limit])
        except ConfigError:
            return None  # below what the other limits leave
        return _result(
            space,
            chosen,
            "ilp",
            [*wanted, limit],
            sensitivity=sensitivity,
            value=solution.value,
            optimal=solution.optimal,
            seconds=solution.seconds,
        )

    steps = (least + (most - least) * step / (points - 1) for step in range(points))
    found = _undominated([r for amount in steps if (r := at(amount * (1 + ROUNDING))) is not None], cost)
    return Front(cost, tuple(_refined(found, cost, points, at)))


def _refined(
    found: list[SearchResult], cost: str, points: int, at: Callable[[float], SearchResult | None]
) -> list[SearchResult]:
    """More points where evenly spaced limits had one answer: in the widest gaps, the one just below its upper end."""
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


def _least_total(space: Space, problem: ilp.Problem, cost: str) -> float:
    if cost != "peak" or space.costs.maps is None:
        return ilp.least(problem, cost)
    narrowest = {g.name: min(space.group_widths(g.name)) for g in space.costs.groups}
    return float(space.costs.maps.peak(narrowest))


def _undominated(results: Sequence[SearchResult], cost: str) -> list[SearchResult]:
    """Ascending in cost, strictly descending in value."""
    ordered = sorted(results, key=lambda r: (r.predicted[cost], r.value or 0.0))
    lowest = itertools.accumulate((r.value or 0.0 for r in ordered), min)
    before = itertools.chain([float("inf")], lowest)
    return [r for r, known in zip(ordered, before, strict=False) if (r.value or 0.0) < known]


def _result(
    space: Space,
    found: Assignment,
    method: str,
    limits: Sequence[Limit],
    *,
    sensitivity: Sensitivity | None = None,
    values: Mapping[str, Mapping[int, float]] | None = None,
    value: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    optimal: bool = False,
    seconds: float = 0.0,
    notes: Sequence[str] = (),
) -> SearchResult:
    model = space.prepared.model
    known = values or {}
    if sensitivity is not None:
        known = {e.node: e.bits for e in sensitivity.of("weights")}
    layers = tuple(
        LayerChoice(
            c.node,
            c.op,
            c.shape,
            found.weights[c.node],
            found.activations.get(c.group, 8),
            c.parameters,
            c.macs,
            known.get(c.node, {}),
            c.seconds,
        )
        for c in space.costs.layers
    )
    return SearchResult(
        method,
        space.prepared.profile.name,
        model.name,
        model.sha256,
        space.overrides(found),
        layers,
        space.totals(found),
        space.costs.baseline(),
        tuple(dict.fromkeys(limit.label for limit in limits)),
        sensitivity.method if sensitivity is not None else "",
        value,
        {"bits": list(space.weight_bits), "activation_bits": list(space.activation_bits)} | dict(parameters or {}),
        optimal,
        seconds,
        (*notes, *space.costs.assumed),
    )


__all__ = ["Front", "Method", "pareto", "read_sensitivity", "search_bits", "search_ilp", "search_mixquant"]
