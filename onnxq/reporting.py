"""Reporting from long work: lines of information, reports of passes, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

from onnxq.errors import printable
from onnxq.graph.match import MatchFailure

Progress = Callable[[int, int | None], None]  # units done, total units (None: unknown)


@dataclass(frozen=True)
class PassReport:
    """The report on one pass. differences: largest |after − before| per output, if verified."""

    text: str
    changed: int
    skipped: tuple[MatchFailure, ...]
    notes: tuple[str, ...]
    seconds: float
    differences: dict[str, float] = field(default_factory=dict)


def describe(report: PassReport) -> str:
    """A report as text: one line, then the skipped nodes grouped by reason, the notes, and verified differences."""
    lines = [f"{report.text}: {report.changed} changed, {report.seconds:.2f} s"]
    by_reason: dict[str, list[str]] = {}
    for failure in report.skipped:
        by_reason.setdefault(failure.reason, []).append(failure.node)
    for reason, nodes in by_reason.items():
        shown = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        lines.append(f"  not changed ({len(nodes)}): {reason}: {shown}")
    lines += [f"  {note}" for note in report.notes]
    lines += [f"  verified: output {name} differs by at most {value:.3g}" for name, value in report.differences.items()]
    return "\n".join(map(printable, lines))


def silent(_message: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Reporter:
    """Callbacks for reports; by default there are none.

    say: called with one line of information for the user. on_report: called after each pass. progress: called with
    (units done, total units or None if unknown) during long work.
    """

    say: Callable[[str], None] = silent
    on_report: Callable[[PassReport], None] | None = None
    progress: Progress | None = None


class ReporterKeywords(TypedDict, total=False):
    """The fields of Reporter as keywords."""

    say: Callable[[str], None]
    on_report: Callable[[PassReport], None] | None
    progress: Progress | None
