"""How code here refuses: with a reason, in one of two forms.

A function that analyses or rewrites returns its result, or `Refused(reason)`: `Affine | Refused`. Where there is no
result it returns `Refused | None`, and None means that nothing is in the way, or that the rewrite is done. Whoever
refuses has changed nothing.

A builder too deep to pass that up raises `RefusedError(reason)`; the one place that catches it takes `.refused`.

A node to which a rewrite does not apply at all is no refusal: the matcher returns None, the step of a pass 0 or False
(graph.sweep). Reports name the node too: MatchFailure(reason, node). Errors of the user (OnnxqError) are not refusals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """Why something cannot be done. reason: a clause about the node, as messages print it after the node's name."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class RefusedError(Exception):
    """A refusal from deep inside; caught where the node is known, never shown to users as an exception."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.refused = Refused(reason)
