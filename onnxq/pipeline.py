"""Passes, their text form, and the runner that checks the graph between them.

A pipeline is text, `fold-constants,fold-batchnorm,insert-qdq{profile=tensorrt}`: pass names separated by commas,
options in braces as key=value separated by spaces. Parsing and printing are inverse: options equal to their default are
left out.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import onnx_graphsurgeon as gs

from onnxq.errors import ModelError, OnnxqError, PassError, PipelineError, PostconditionError
from onnxq.graph import topology
from onnxq.graph.match import MatchFailure
from onnxq.graph.model import Model
from onnxq.records import BadRecord, dotted, parse_options, print_options, suggest

if typing.TYPE_CHECKING:
    from onnxq.context import PassContext


@dataclass(frozen=True)
class PassResult:
    """What a pass did: how many rewrites, what it could not rewrite and why, and remarks for the user."""

    changed: int = 0
    skipped: tuple[MatchFailure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One rewrite of a graph. Subclasses are frozen dataclasses: their fields are the pass's options.

    name: as in pipeline text; equals the file name with - for _.
    preserves_values: the outputs do not change beyond float rounding, which the runner can prove on inputs.
    Idempotent: run twice, the second run changes nothing.
    """

    name: ClassVar[str] = ""
    preserves_values: ClassVar[bool] = False

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Raise PreconditionError when the graph or the context is not what the pass needs."""

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Edit the graph in place."""
        raise NotImplementedError(f"pass {self.name} has no apply")

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Raise PostconditionError when the result is not what the pass promises."""

    def __str__(self) -> str:
        options = [f"{name}={_quote(text)}" for name, text in print_options(self).items()]
        return self.name + (f"{{{' '.join(options)}}}" if options else "")


@dataclass(frozen=True)
class PassReport:
    """One line of the runner's report. differences: largest |after − before| per output, when verified."""

    text: str
    changed: int
    skipped: tuple[MatchFailure, ...]
    notes: tuple[str, ...]
    seconds: float
    differences: dict[str, float] = field(default_factory=dict)


def available() -> dict[str, type[Pass]]:
    """Every pass by name: one module in passes/ each, found by its file name."""
    import onnxq.passes

    found: dict[str, type[Pass]] = {}
    for module in pkgutil.iter_modules(onnxq.passes.__path__):
        if module.name.startswith("_"):
            continue
        cls = _pass_class(importlib.import_module(f"onnxq.passes.{module.name}"))
        if cls.name != module.name.replace("_", "-"):
            raise PipelineError(f"passes/{module.name}.py defines pass {cls.name!r}: the names must agree")
        found[cls.name] = cls
    return found


def _pass_class(module: types.ModuleType) -> type[Pass]:
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Pass) and c.__module__ == module.__name__ and c.name
    ]
    if len(classes) != 1:
        raise PipelineError(f"{module.__name__} must define exactly one pass, it defines {len(classes)}")
    return classes[0]


_QUOTED = r'"(?:[^"\\]|\\.)*"'  # \" and \\ stand for " and \
_ITEM = re.compile(rf"\s*([A-Za-z0-9_-]+)\s*(?:\{{((?:[^{{}}\"]|{_QUOTED})*)\}})?\s*")
_OPTION = re.compile(rf"\s*([A-Za-z0-9_-]+)\s*=\s*({_QUOTED}|[^\s\"]+)\s*")


def parse(text: str) -> tuple[Pass, ...]:
    """Pipeline text to passes; raises PipelineError that shows the offending place."""
    if not text.strip():
        raise PipelineError("the pipeline is empty: name at least one pass, as `onnxq passes` lists them")
    passes: list[Pass] = []
    position = 0
    registry = available()
    while True:
        item = _ITEM.match(text, position)
        if item is None:
            raise _parse_error(text, position, "expected a pass name")
        name, options = item.group(1), item.group(2)
        if name not in registry:
            raise _parse_error(text, item.start(1), f"no pass is called {name!r}{suggest(name, registry, 'there are')}")
        passes.append(make(registry[name], _parse_options(text, item.start(2), options), text, item.start(1)))
        position = item.end()
        if position == len(text):
            return tuple(passes)
        if text[position] != ",":
            raise _parse_error(text, position, "expected ',' or the end")
        position += 1


def print_pipeline(passes: Iterable[Pass]) -> str:
    """Passes to text; parse(print_pipeline(p)) == p."""
    return ",".join(str(p) for p in passes)


def make(cls: type[Pass], options: dict[str, str], text: str = "", position: int = 0) -> Pass:
    """A pass from option strings; raises PipelineError for an unknown option or a value of the wrong type."""
    try:
        return parse_options(cls, options)
    except BadRecord as err:
        place = f", option {dotted(err.path)}" if err.path else ""
        raise _parse_error(text, position, f"pass {cls.name}{place}: {err.reason}") from None


def _parse_options(text: str, start: int, raw: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    if raw is None:
        return options
    position = 0
    while position < len(raw.rstrip()):
        match = _OPTION.match(raw, position)
        if match is None:
            raise _parse_error(text, start + position, "expected key=value")
        key, value = match.group(1), match.group(2)
        if key in options:
            raise _parse_error(text, start + match.start(1), f"option {key} is given twice")
        options[key] = re.sub(r'\\(["\\])', r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return options


def _quote(value: str) -> str:
    if value and not re.search(r'[\s{}"]', value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _parse_error(text: str, position: int, message: str) -> PipelineError:
    if not text:
        return PipelineError(message)
    return PipelineError(f"pipeline {text!r}, column {position + 1}: {message}")


def run(
    model: Model,
    passes: Sequence[Pass],
    ctx: PassContext,
    *,
    verify: bool = False,
    save_after: tuple[str, str | Path] | None = None,
    on_report: Callable[[PassReport], None] | None = None,
) -> list[PassReport]:
    """Run passes over a model in place and report on each.

    verify: prove every value-preserving pass on inputs (ctx.data, else random ones) with onnxruntime.
    save_after: (pass name, path): save the model after that pass as well.
    Between passes the graph is sorted, cleared of dead nodes and checked. Raises PassError (or the user's error
    inside it) naming the pass and those before it.
    """
    from onnxq.execution import save
    from onnxq.measure import pass_equality as verification

    reports: list[PassReport] = []
    if save_after is not None and save_after[0] not in {p.name for p in passes}:
        raise PipelineError(f"--save-after {save_after[0]}: not in the pipeline {print_pipeline(passes)}")
    for p in passes:
        before, unproven = _before(model, ctx) if verify and p.preserves_values else (None, ())
        started = time.perf_counter()
        try:
            p.requires(model.graph, ctx)
            result = p.apply(model.graph, ctx)
            topology.toposort(model.graph)
            topology.remove_dead(model.graph)
            topology.verify(model.graph)
            p.ensures(model.graph, ctx)
        except PassError as err:
            raise type(err)(f"pass {p.name}{_after(reports)}: {err}") from err
        except OnnxqError:
            raise
        except Exception as err:  # a bug in the pass: name it, keep the cause for --debug
            raise PassError(f"pass {p.name}{_after(reports)} failed: {type(err).__name__}: {err}") from err
        seconds = time.perf_counter() - started
        differences = verification.compare(p.name, before, verification.outputs(model, ctx)) if before else {}
        if unproven:
            verification.outputs(model, ctx)  # a model that cannot be run after the pass either is an error
        notes = (*result.notes, *unproven)
        report = PassReport(str(p), result.changed, result.skipped, notes, seconds, differences)
        reports.append(report)
        if on_report:
            on_report(report)
        if save_after is not None and save_after[0] == p.name:
            save.save(model, save_after[1])
    return reports


def _before(model: Model, ctx: PassContext) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Outputs before a pass, or a remark on why there are none: passes make models run that did not (bfloat16)."""
    from onnxq.measure import pass_equality as verification

    try:
        return verification.outputs(model, ctx), ()
    except ModelError as err:
        return None, (f"not verified, the model cannot be run before this pass: {err}",)


def describe(report: PassReport) -> str:
    """A report as text: one line, then what was skipped grouped by reason, the notes, and verified differences."""
    lines = [f"{report.text}: {report.changed} changed, {report.seconds:.2f} s"]
    by_reason: dict[str, list[str]] = {}
    for failure in report.skipped:
        by_reason.setdefault(failure.reason, []).append(failure.node)
    for reason, nodes in by_reason.items():
        shown = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        lines.append(f"  not changed ({len(nodes)}): {reason}: {shown}")
    lines += [f"  {note}" for note in report.notes]
    lines += [f"  verified: output {name} differs by at most {value:.3g}" for name, value in report.differences.items()]
    return "\n".join(lines)


def _after(reports: Sequence[PassReport]) -> str:
    return f" (after {', '.join(r.text for r in reports)})" if reports else ""


__all__ = [
    "MatchFailure",
    "Pass",
    "PassReport",
    "PassResult",
    "PostconditionError",
    "available",
    "describe",
    "make",
    "parse",
    "print_pipeline",
    "run",
]
