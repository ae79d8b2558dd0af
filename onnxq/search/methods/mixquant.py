"""MixQuant: the width of every layer from its weights alone (Kloberdanz & Le 2023, algorithm 1).

For every layer the quantization error, the mean of (w − dequantize(quantize(w)))², is computed at 8 … 2 bits; it may be
at most QEM · (the error at 8 bits), where QEM is the quantization error multiplier. "argmin b subject to error(b) ≤
QEM · error(8)" can be read in two ways:

* "lowest" (the paper's intent): the lowest width that satisfies it;
* "least-error": of the widths that satisfy it, the one with the least error. As errors grow with every bit removed,
  that is 8 bits for nearly every tensor; it differs only if the weights are on the grid of a narrower format.

The widest width allowed always counts as satisfying it: a layer cannot do better.

One bit less costs a uniform quantizer four times the error, so a QEM below 4 lowers nothing. In decibels a QEM is a
loss of SQNR, 10·log10(QEM); that is how the default is stated.
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
    from onnxq.search.space import Assignment, Space

WIDTHS = tuple(range(MAX_BITS, MIN_BITS - 1, -1))
DEFAULT_LOSS = 13.0  # dB below the SQNR at 8 bits, where nothing else is asked for: two bits of ordinary weights
Reading = Literal["lowest", "least-error"]
MAX_LOSS = 300  # dB; more is no constraint
SHOWN = 5  # number of most sensitive layers in the table


def _decibels(text: str) -> float:
    try:
        return float(text.lower().removesuffix("db"))
    except ValueError:
        raise ValueError("decibels are needed, e.g. 13") from None


def _qem(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("numbers separated by commas are needed, e.g. 2,10,100") from None


@dataclass(frozen=True)
class MixQuant(SearchMethod):
    """Choose the lowest width whose weight error is within QEM times that at 8 bits; uses the weights alone.

    qem: quantization error multiplier. max_sqnr_loss: the same in decibels, 10·log10(QEM). Without both, the least QEM
    that meets the limits, or without limits a loss of 13 dB. rqe: file for the relative quantization errors.
    """

    name: ClassVar[str] = "mixquant"
    widths: ClassVar[tuple[int, ...]] = WIDTHS
    sweeps: ClassVar[str] = "qem"
    qem: float | None = field(
        default=None,
        metadata=about(
            "quantization error multiplier, or several.  [default: the least that meets the limits]", parse=_qem
        ),
    )
    max_sqnr_loss: float | None = field(
        default=None,
        metadata=about(
            f"largest loss of a layer's weight SQNR against 8 bits; 6 dB are one bit, and QEM = 10^(dB/10).  "
            f"[default: {DEFAULT_LOSS:g}, without --qem or a limit]",
            metavar="DB",
            parse=_decibels,
        ),
    )
    quantizer: str = field(
        default="affine", metadata=about("number format of the weights: affine, symmetric, power-of-two, profile.")
    )
    reading: Reading = field(
        default="lowest",
        metadata=about("which of the widths within QEM · error(8) to choose.", choices=get_args(Reading)),
    )
    rqe: str | None = field(
        default=None,
        metadata=about(
            "write the relative quantization error, the mean of (w − ŵ)/w, of every layer at every width (the paper's "
            "table 4), and print the largest.",
            metavar="FILE.csv",
            file=True,
        ),
    )

    def __post_init__(self) -> None:
        if self.max_sqnr_loss is not None and self.qem is not None:
            raise ConfigError("a QEM and a loss of SQNR are the same constraint: give one of --qem, --max-sqnr-loss")
        if self.max_sqnr_loss is not None and not 0 <= self.max_sqnr_loss < MAX_LOSS:
            raise ConfigError(
                f"a loss of {self.max_sqnr_loss:g} dB: a number of decibels from 0 to {MAX_LOSS} is needed"
            )
        if self.rqe is not None and not self.rqe.endswith(".csv"):
            raise ConfigError(f"{self.rqe}: relative quantization errors are written as .csv")

    def run(self, inputs: SearchInputs) -> SearchResult:
        qem = self.qem if self.max_sqnr_loss is None else 10 ** (self.max_sqnr_loss / 10)
        return search_mixquant(inputs.space, self._table(inputs), qem, reading=self.reading, limits=inputs.limits)

    def extras(self, inputs: SearchInputs, results: Sequence[SearchResult]) -> Iterator[Table]:
        lowest, table = min(inputs.space.weight_bits), self._table(inputs)
        columns = [("most sensitive layers", "left"), (f"squared error at {lowest} / at 8 bits", "right")]
        columns.append(("mean squared error", "right"))
        ranking = table.most_sensitive(lowest)[:SHOWN]
        yield Table(
            columns, [[name, f"{relative:.4g}", f"{table.errors[name][lowest]:.3g}"] for name, relative in ranking]
        )
        if self.rqe is not None:
            yield self._relative(inputs, lowest)

    def _relative(self, inputs: SearchInputs, lowest: int) -> Table:
        from onnxq.graph.files import write_text
        from onnxq.search.error_table import relative_error_table

        found = relative_error_table(inputs.space.prepared, self.quantizer, (MAX_BITS, *inputs.space.weight_bits))
        assert self.rqe is not None
        write_text(self.rqe, found.to_csv())
        inputs.say(f"wrote {self.rqe}")
        widths = (MAX_BITS, lowest)
        columns = [("largest relative quantization error (RQE)", "left"), *((f"at {b} bits", "right") for b in widths)]
        columns.append((f"mean |w − ŵ|/|w| at {lowest} bits", "right"))
        rows = [
            [n, *(f"{found.signed[n][b]:.4g}" for b in widths), f"{found.magnitude[n][lowest]:.4g}"]
            for n in found.most_sensitive(lowest)[:SHOWN]
        ]
        return Table(columns, rows)

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
    """MixQuant with one QEM; without one the least that meets the limits, or without limits a loss of 13 dB of SQNR.

    Calls may share an error table. Notes of the result say what was assumed, and if no layer was lowered.

    Raises ConfigError where the limits cannot be met.
    """
    if space.searches_activations:
        raise ConfigError("MixQuant chooses only weight widths: leave the activations at 8 bits")
    started = time.perf_counter()
    wanted = space.limits(limits or {})
    notes, by_limit = [], qem is None and bool(wanted)
    if qem is None and wanted:
        qem = _least_qem(space, table, reading, wanted)
    elif qem is None:
        qem = 10 ** (DEFAULT_LOSS / 10)
        notes.append(
            f"neither a QEM nor a limit: every layer may lose {DEFAULT_LOSS:g} dB of its weight SQNR at 8 bits (QEM "
            f"{qem:.3g}), about two bits; state --max-sqnr-loss, --qem or a limit such as --max-size 60%"
        )
    used = qem
    found = space.assignment(_tied(space, choose(table, used, space.weight_bits, reading=reading, fixed=space.fixed)))
    totals = space.totals(found)
    for limit in wanted:
        if totals[limit.cost] > limit.most * (1 + ROUNDING):
            reached = format_cost(limit.cost, totals[limit.cost], space.costs.baseline())
            raise ConfigError(f"{limit.label} is not met with QEM {used:g}: it gives {reached}; raise the QEM")
    if not by_limit:
        notes += _nothing_lowered(space, table, found, used, reading)
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


def _nothing_lowered(space: Space, table: ErrorTable, found: Assignment, qem: float, reading: Reading) -> list[str]:
    """A note if every layer that can be lowered kept the widest width, with the reason."""
    widest = max(space.weight_bits)
    free = [n for n in table.errors if n not in space.fixed]
    lower = [b for b in space.weight_bits if b < widest]
    if not free or not lower or any(found.weights[n] < widest for n in free):
        return []
    told = f"no layer is below {widest} bits: "
    if reading == "least-error":
        return [f"{told}the reading least-error takes a lower width only where that adds no error"]
    tied: dict[str, list[str]] = {}
    for name in free:
        tied.setdefault(space.ties[name], []).append(name)
    least = min(max(table.relative(n, b) for n in names) for names in tied.values() for b in lower)
    return [
        f"{told}QEM {qem:.4g} allows less error than any lower width has, at least {least:.3g} times that at 8 bits; "
        "raise --qem or --max-sqnr-loss, or give a limit such as --max-size 60%"
    ]


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
