"""The base class of passes: a frozen dataclass whose fields are its options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.match import MatchFailure
from onnxq.records import print_options


@dataclass(frozen=True)
class PassResult:
    """The result of a pass: number of rewrites, what it could not rewrite and why, and remarks for the user."""

    changed: int = 0
    skipped: tuple[MatchFailure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One rewrite of a graph. Subclasses are frozen dataclasses: their fields are the pass's options.

    name: as in pipeline text; equals the file name with - for _.
    preserves_values: the outputs do not change beyond float rounding, which the runner can verify on inputs.
    Passes are idempotent: a second run changes nothing. str(pass) is the text form.
    """

    name: ClassVar[str] = ""
    preserves_values: ClassVar[bool] = False

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Raise PreconditionError if the graph or the context is not what the pass needs."""

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Edit the graph in place."""
        raise NotImplementedError(f"pass {self.name} has no apply")

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Raise PostconditionError if the result is not what the pass guarantees."""

    def __str__(self) -> str:
        options = " ".join(f"{name}={_quote(text)}" for name, text in print_options(self).items())
        return f"{self.name}{{{options}}}" if options else self.name


def _quote(text: str) -> str:
    if text and not re.search(r'[\s{}"]', text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
