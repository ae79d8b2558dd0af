"""Running passes over a model: the graph is sorted, cleaned and checked after each pass, and errors name the pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxq.context import PassContext
from onnxq.errors import ModelError, OnnxqError, PassError, PipelineError
from onnxq.execution import save
from onnxq.graph import topology
from onnxq.graph.model import Model
from onnxq.measure import pass_equality as verification
from onnxq.pipeline.base import Pass
from onnxq.pipeline.text import print_pipeline
from onnxq.reporting import PassReport


def run(
    model: Model,
    passes: Sequence[Pass],
    ctx: PassContext,
    *,
    verify: bool = False,
    save_after: tuple[str, str | Path] | None = None,
) -> list[PassReport]:
    """Run passes over a model in place and report on each, also to ctx.reporter.

    verify: check every value-preserving pass on inputs (ctx.data, else random ones) with onnxruntime.
    save_after: (pass name, path): save the model after that pass as well.
    After each pass the graph is sorted, cleared of dead nodes and checked. Raises PassError, naming the pass and the
    earlier ones, or the OnnxqError that a pass raised.
    """
    reports: list[PassReport] = []
    ctx.plans.clear()
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
            if result.changed:
                ctx.plans.clear()
            p.ensures(model.graph, ctx)
        except PassError as err:
            raise type(err)(f"pass {p.name}{_after(reports)}: {err}") from err
        except OnnxqError:
            raise
        except Exception as err:  # a bug in the pass: name the pass, keep the cause for --debug
            raise PassError(f"pass {p.name}{_after(reports)} failed: {type(err).__name__}: {err}") from err
        seconds = time.perf_counter() - started
        differences = verification.compare(p.name, before, verification.outputs(model, ctx)) if before else {}
        if unproven:
            verification.outputs(model, ctx)  # raises if the model cannot be run after the pass either
        notes = (*result.notes, *unproven)
        report = PassReport(str(p), result.changed, result.skipped, notes, seconds, differences)
        reports.append(report)
        if ctx.reporter.on_report is not None:
            ctx.reporter.on_report(report)
        if save_after is not None and save_after[0] == p.name:
            save.save(model, save_after[1])
    return reports


def _before(model: Model, ctx: PassContext) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Outputs before a pass, or a remark on why there are none: some models can only be run after it (bfloat16)."""
    try:
        return verification.outputs(model, ctx), ()
    except ModelError as err:
        return None, (f"not verified, the model cannot be run before this pass: {err}",)


def _after(reports: Sequence[PassReport]) -> str:
    return f" (after {', '.join(r.text for r in reports)})" if reports else ""
