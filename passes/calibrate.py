"""Observe activations with onnxruntime: the statistics for every range chooser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.calibrate import runner
from onnxq.calibrate.ranks import observe_ranks
from onnxq.context import PassContext
from onnxq.data.source import input_specs, open_data
from onnxq.errors import OnnxqError, PreconditionError
from onnxq.execution.known_ops import find_unknown
from onnxq.graph.unknown_ops import unknown_ops
from onnxq.passes.insert_qdq import planned, resolve
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class Calibrate(Pass):
    """Run the float model on the calibration data and collect statistics of the tensors the profile quantizes.

    profile: name or path; empty uses the pipeline's. Of the graph only unknown ranks are filled in. No statistics are
    collected if the existing ones cover the tensors.
    """

    name: ClassVar[str] = "calibrate"
    profile: str = ""

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Data or statistics are required."""
        resolve(self.profile, ctx)
        if ctx.data is None and ctx.statistics is None:
            raise PreconditionError("no calibration data: give --data, --stats or --random-data")

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Collect statistics into ctx.statistics."""
        find_unknown(ctx.model)  # what cannot be run is planned to stay in float
        ctx.plans.clear()
        notes = self._see_ranks(graph, ctx)
        wanted = planned(graph, ctx, self.profile).observed()
        if not wanted and unknown_ops(graph):
            return PassResult(notes=(*notes, "nothing to observe: all layers depend on operators that cannot be run"))
        if ctx.statistics is not None and all(name in ctx.statistics for name in wanted):
            return PassResult(notes=(*notes, f"used existing statistics of {len(wanted)} tensors"))
        if ctx.data is None:
            missing = next(name for name in wanted if name not in (ctx.statistics or ()))
            raise PreconditionError(
                f"the statistics do not cover tensor {missing}, and there is no data to collect them from"
            )
        ctx.statistics = runner.collect(ctx.model, wanted, ctx.data, ctx.run, ctx.reporter.progress)
        seen = ctx.statistics.provenance.get("samples", 0)
        return PassResult(notes=(*notes, f"observed {len(wanted)} tensors on {seen} samples"))

    def _see_ranks(self, graph: gs.Graph, ctx: PassContext) -> tuple[str, ...]:
        """What shape inference does not know decides what can be quantized: the data, or random data, shows it."""
        if not any(t.shape is None for n in graph.nodes for t in n.outputs):
            return ()
        inputs = input_specs(graph)
        try:
            data = ctx.data if ctx.data is not None else open_data(None, inputs, random=1)
        except OnnxqError:
            return ()  # random data needs shapes from the user
        found = observe_ranks(ctx.model, data)
        ctx.plans.clear()
        return (f"the ranks of {found} tensors were seen by running the model",) if found else ()
