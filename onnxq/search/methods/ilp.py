"""The integer linear program of HAWQ-V3 on measured sensitivities (equations 11 to 14)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from onnxq.search.limits import COSTS
from onnxq.search.method import SearchMethod, Table, about

if TYPE_CHECKING:
    from onnxq.search.inputs import SearchInputs
    from onnxq.search.result import SearchResult


@dataclass(frozen=True)
class IntegerProgram(SearchMethod):
    """Minimize the sum of measured sensitivities under any set of limits."""

    name: ClassVar[str] = "ilp"
    needs: ClassVar[tuple[str, ...]] = ("sensitivity",)
    takes: ClassVar[tuple[str, ...]] = ("limits", "latency")
    pareto: str | None = field(
        default=None,
        metadata=about(
            "plot the front over the limit on --pareto-cost; its points are written next to it as .csv.",
            metavar="FILE.png",
            picture=True,
        ),
    )
    pareto_cost: str = field(default="size", metadata=about("cost axis of the front.", choices=tuple(COSTS)))
    points: int = field(default=25, metadata=about("number of points of the front.", least=2))

    def run(self, inputs: SearchInputs) -> SearchResult:
        from onnxq.search.least_sensitivity import search_ilp

        return search_ilp(inputs.space, inputs.measured(), inputs.limits)

    def extras(self, inputs: SearchInputs, results: Sequence[SearchResult]) -> Iterator[Table]:
        if self.pareto is None:
            return
        from onnxq.search.least_sensitivity import pareto
        from onnxq.search.report import front_rows, save_front

        front = pareto(inputs.space, inputs.measured(), self.pareto_cost, self.points, inputs.limits)
        points = save_front(front, self.pareto)
        columns = [(self.pareto_cost, "right"), ("of int8", "right"), ("sensitivity", "right"), ("layers", "left")]
        yield Table(columns, front_rows(front))
        inputs.say(f"wrote {self.pareto} and {points}")
