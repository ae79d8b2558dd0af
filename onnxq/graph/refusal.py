"""Refusals: why a rewrite or an analysis is not possible, in one of two forms.

A function that analyses or rewrites returns its result or `Refused(reason)`: `Affine | Refused`. A function without a
result returns `Refused | None`, where None means that nothing prevents the rewrite, or that it is done. A function
that refuses has changed nothing.

Deeply nested builders raise `RefusedError(reason)` instead; the one place that catches it uses `.refused`.

A node to which a rewrite does not apply at all is not a refusal: the matcher returns None, a pass's step 0 or False
(graph.sweep). Reports also name the node: MatchFailure(reason, node). User errors (OnnxqError) are not refusals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """Why something cannot be done. reason: a clause about the node, which messages print after the node's name."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class RefusedError(Exception):
    """A refusal from nested code; caught where the node is known, never shown to users as an exception."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.refused = Refused(reason)
