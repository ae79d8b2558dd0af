"""The result of a proof, as data for the card."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from onnxq.errors import ConfigError
from onnxq.records import plain

Level = Literal["none", "quick", "full"]
LEVELS = ("none", "quick", "full")
# Ten times less noise than signal: what has more is wrong rather than coarse (docs/proof.md).
FLOOR_DB = 10.0


@dataclass(frozen=True)
class ProofOptions:
    """How a product is proven.

    proof: "quick" (a few samples), "full" (every sample, and every runtime of this machine), or "none". strict: a
    finding is an error. min_sqnr: the least SQNR in dB that every float output must have; less is an error.
    Raises ConfigError for values that do not exist.
    """

    proof: Level = "quick"
    strict: bool = False
    min_sqnr: float | None = None

    def __post_init__(self) -> None:
        if self.proof not in LEVELS:
            raise ConfigError(f"proof {self.proof!r} is not one of {', '.join(LEVELS)}")
        if self.proof == "none" and (self.strict or self.min_sqnr is not None):
            raise ConfigError("strict and min_sqnr need a proof: choose quick or full")
        if self.min_sqnr is not None and math.isnan(self.min_sqnr):
            raise ConfigError("min_sqnr must be a number of dB, not NaN")

    @property
    def floor(self) -> float:
        """The SQNR in dB under which an output is a finding."""
        return FLOOR_DB if self.min_sqnr is None else self.min_sqnr


class ProofKeywords(TypedDict, total=False):
    """The fields of ProofOptions as keywords."""

    proof: Level
    strict: bool
    min_sqnr: float | None


@dataclass(frozen=True)
class ProofOutput:
    """One output of one run, against the reference.

    sqnr_db: of a float output, rounded; None if it is equal or not of floats. equal: share of equal elements, 0 to 1.
    compared: False if the two outputs cannot be compared (then the figures mean nothing).
    """

    name: str
    sqnr_db: float | None
    equal: float
    compared: bool = True


@dataclass(frozen=True)
class ProofRun:
    """One way in which the product was run.

    failed: why it could not be, else empty. samples: the first ones that it ran on; None for all of the proof's.
    """

    name: str
    outputs: tuple[ProofOutput, ...] = ()
    failed: str = ""
    samples: int | None = None


@dataclass(frozen=True)
class ProofFinding:
    """Something that is not right.

    kind: "refused" (does not load or run), "differs" (runs of the product differ beyond rounding), "low" (an output
    under the floor), "lost" (a channel that lost its constant) or "nonfinite". run: in which it shows. output: of the
    model, empty for a finding inside it. node: the first that shows it, empty if unknown. cause: the optimizer of
    onnxruntime, or "saturation" of the CPU's 16-bit sums, or empty. text: in words.
    """

    kind: str
    run: str
    output: str
    node: str
    cause: str
    text: str


@dataclass(frozen=True)
class Proof:
    """A product against its reference.

    reference: "float model" or "QDQ model". samples: number of them; random: not real data. floor_db: under which an
    output is a finding. notes: what could not be done, and why.
    """

    level: str
    reference: str
    samples: int
    random: bool
    floor_db: float
    runs: tuple[ProofRun, ...] = ()
    findings: tuple[ProofFinding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    def summary(self) -> str:
        """In one line: how it was run, and the least SQNR or the number of findings."""
        ran = ", ".join(run.name for run in self.runs)
        whole = [run for run in self.runs if run.samples is None]
        least = min((o.sqnr_db for r in whole for o in r.outputs if o.sqnr_db is not None), default=None)
        figure = "" if least is None else f", SQNR at least {least:.1f} dB"
        found = f": {len(self.findings)} FINDING(S), see the warnings and the card" if self.findings else figure
        return f"proven on {self.samples} {'random ' if self.random else ''}sample(s) ({ran}){found}"

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        table: dict[str, Any] = plain(self)
        return table
