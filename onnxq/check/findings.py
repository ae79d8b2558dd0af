"""What a check says about a model and a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["reject", "remark", "note"]
SEVERITIES: tuple[Severity, ...] = ("reject", "remark", "note")
# Operators of the standard domain that carry integers inside, and the one that finds its scale at run time.
INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
DYNAMIC_OPS = ("DynamicQuantizeLinear",)


@dataclass(frozen=True)
class Finding:
    """One thing about a model and a target.

    severity: "reject" (the target refuses it or computes it wrong), "remark" (it runs, but in float or unfused, or less
    exact than the profile wants) or "note" (worth knowing). node: its name, "" for the whole model. problem, fix: one
    line each; fix is empty for notes.
    """

    severity: Severity
    node: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{self.severity}: {where}{self.problem}" + (f" (fix: {self.fix})" if self.fix else "")

    def to_dict(self) -> dict[str, str]:
        """JSON types only."""
        return asdict(self)
