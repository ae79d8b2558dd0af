"""MixQuant: the width of every layer from its weights alone (Kloberdanz & Le 2023, algorithm 1).

For every layer the quantization error, the mean of (w − dequantize(quantize(w)))², is computed at 8 … 2 bits; it may be
at most QEM · (the error at 8 bits), where QEM is the quantization error multiplier. "argmin b subject to error(b) ≤
QEM · error(8)" can be read in two ways:

* "lowest" (the paper's intent): the lowest width that satisfies it;
* "least-error": of the widths that satisfy it, the one with the least error. As errors grow with every bit removed,
  that is 8 bits for nearly every tensor; it differs only if the weights are on the grid of a narrower format.

The widest width allowed always counts as satisfying it: a layer cannot do better.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from onnxq.errors import ConfigError
from onnxq.numeric.formats import MAX_BITS, MIN_BITS
from onnxq.search.limits import ROUNDING, format_cost
from onnxq.search.linear_program import Limit
from onnxq.search.method import SearchMethod, Table, about
from onnxq.search.result import SearchResult, result_of

if TYPE_CHECKING:
    from onnxq.search.error_table import ErrorTable
    from onnxq.search.inputs import LimitTexts, SearchInputs
    from onnxq.search.space import Space

WIDTHS = tuple(range(MAX_BITS, MIN_BITS - 1, -1))
DEFAULT_QEM = 2.0
Reading = Literal["lowest", "least-error"]
SHOWN = 5  # number of most sensitive layers in the table


def _qem(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("numbers separated by commas are needed, e.g. 2,10,100") from None


@dataclass(frozen=True)
class MixQuant(SearchMethod):
    """Choose the lowest width whose weight error is within QEM times that at 8 bits; uses the weights alone.

    qem: quantization error multiplier; None is 2, or with limits the least that meets them.
    """

    name: ClassVar[str] = "mixquant"
    widths: ClassVar[tuple[int, ...]] = WIDTHS
    sweeps: ClassVar[str] = "qem"
    qem: float | None = field(
        default=None,
        metadata=about("quantization error multiplier, or several.  [default: 2; the least, with limits]", parse=_qem),
    )
    quantizer: str = field(
        default="affine", metadata=about("number format of the weights: affine, symmetric, power-of-two, profile.")
    )
    reading: Reading = field(
        default="lowest",
        metadata=about("which of the widths within QEM · error(8) to choose.", choices=get_args(Reading)),
    )

    def run(self, inputs: SearchInputs) -> SearchResult:
        return search_mixquant(inputs.space, self._table(inputs), self.qem, reading=self.reading, limits=inputs.limits)

    def extras(self, inputs: SearchInputs, results: Sequence[SearchResult]) -> Iterator[Table]:
        lowest, table = min(inputs.space.weight_bits), self._table(inputs)
        columns = [("most sensitive layers", "left"), (f"error at {lowest} / at 8 bits", "right"), ("error", "right")]
        ranking = table.most_sensitive(lowest)[:SHOWN]
        yield Table(
            columns, [[name, f"{relative:.4g}", f"{table.errors[name][lowest]:.3g}"] for name, relative in ranking]
        )

    def _table(self, inputs: SearchInputs) -> ErrorTable:
        from onnxq.search.error_table import error_table

        space = inputs.space
        return inputs.once(
            ("errors", self.quantizer), lambda: error_table(space.prepared, self.quantizer, space.weight_bits)
        )


def choose(
    table: ErrorTable,
    qem: float,
    bits: Sequence[int] = WIDTHS,
    *,
    reading: Reading = "lowest",
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Width of every layer under error(b) ≤ qem · error(8).

    bits: widths to choose from, in the table. fixed: {node: bits} of layers that are not chosen. Raises ConfigError for
    a QEM below 1, which only 8 bits could satisfy, or an unknown reading.
    """
    if not 1 <= qem < math.inf:
        raise ConfigError(
            f"QEM {qem}: a finite number of at least 1 is needed (1 allows no more error than 8 bits give)"
        )
    if reading not in get_args(Reading):
        raise ConfigError(f"reading {reading!r} is none of {', '.join(get_args(Reading))}")
    chosen = {}
    for node, errors in table.errors.items():
        if fixed and node in fixed:
            chosen[node] = fixed[node]
            continue
        allowed = qem * errors[MAX_BITS]
        satisfying = [b for b in sorted(bits) if errors[b] <= allowed] or [max(bits)]
        chosen[node] = satisfying[0] if reading == "lowest" else min(satisfying, key=lambda b: (errors[b], -b))
    return chosen


def thresholds(table: ErrorTable, bits: Sequence[int] = WIDTHS) -> list[float]:
    """The QEMs at which the choice changes, ascending, 1 first; between two of them it is constant."""
    found = {table.relative(node, b) for node in table.errors for b in bits}
    return [1.0, *sorted(r for r in found if 1 < r < float("inf"))]


def search_mixquant(
    space: Space,
    table: ErrorTable,
    qem: float | None = None,
    *,
    reading: Reading = "lowest",
    limits: LimitTexts | None = None,
) -> SearchResult:
    """MixQuant with one QEM, or, with limits and no QEM, the least QEM that meets them; calls may share an error table.

    Raises ConfigError where the limits cannot be met.
    """
    if space.searches_activations:
        raise ConfigError("MixQuant chooses only weight widths: leave the activations at 8 bits")
    started = time.perf_counter()
    wanted = space.limits(limits or {})
    if qem is None and wanted:
        qem = _least_qem(space, table, reading, wanted)
    used = DEFAULT_QEM if qem is None else qem
    found = space.assignment(_tied(space, choose(table, used, space.weight_bits, reading=reading, fixed=space.fixed)))
    totals = space.totals(found)
    for limit in wanted:
        if totals[limit.cost] > limit.most * (1 + ROUNDING):
            reached = format_cost(limit.cost, totals[limit.cost], space.costs.baseline())
            raise ConfigError(f"{limit.label} is not met with QEM {used:g}: it gives {reached}; raise the QEM")
    notes = []
    grid = [n for n in table.errors if table.relative(n, max((b for b in space.weight_bits if b < 8), default=8)) > 1e3]
    if grid:
        notes.append(
            f"the weights of {len(grid)} layers are already on an 8-bit grid ({grid[0]}…): "
            "their error at 8 bits is not meaningful"
        )
    return result_of(
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
    """Give layers that share a width the widest that MixQuant chooses for any of them."""
    widest: dict[str, int] = {}
    for name, bits in weights.items():
        widest[space.ties[name]] = max(bits, widest.get(space.ties[name], 0))
    return {name: widest[space.ties[name]] for name in weights}


def _least_qem(space: Space, table: ErrorTable, reading: Reading, limits: Sequence[Limit]) -> float:
    """The least QEM, by bisection over the QEMs at which the choice changes: costs fall as the QEM grows."""
    points = thresholds(table, space.weight_bits)
    points = [p * (1 + ROUNDING) for p in points]

    def excess(qem: float) -> list[Limit]:
        weights = choose(table, qem, space.weight_bits, reading=reading, fixed=space.fixed)
        totals = space.totals(space.assignment(_tied(space, weights)))
        return [limit for limit in limits if totals[limit.cost] > limit.most * (1 + ROUNDING)]

    if missed := excess(points[-1]):
        weights = choose(table, points[-1], space.weight_bits, reading=reading, fixed=space.fixed)
        best = space.totals(space.assignment(_tied(space, weights)))[missed[0].cost]
        reached = format_cost(missed[0].cost, best, space.costs.baseline())
        raise ConfigError(f"{missed[0].label} cannot be met: with these widths and any QEM the least is {reached}")
    low, high = 0, len(points) - 1
    while low < high:
        middle = (low + high) // 2
        if excess(points[middle]):
            low = middle + 1
        else:
            high = middle
    return points[low]
