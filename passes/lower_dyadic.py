"""Replace Q/DQ and the operators in between with integer operators of domain com.onnxq (HAWQ-V3, section III).

Every quantized tensor keeps its name; the first QuantizeLinears and the last DequantizeLinears stay unchanged. What
cannot be computed in integers stays in float between DequantizeLinear and QuantizeLinear, with the reason.
The implementation is in onnxq/lowering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.errors import PostconditionError, PreconditionError
from onnxq.graph.qdq import has_qdq
from onnxq.lowering.graph import islands, lower_graph
from onnxq.operators import DOMAIN, check_node
from onnxq.pipeline import Pass, PassResult

OPSET = 21  # INT4 weights; the function bodies of the operators


@dataclass(frozen=True)
class LowerDyadic(Pass):
    """Replace Q/DQ and the operators in between with integer operators of com.onnxq.

    rescale: form of the multipliers: fixed (shift 32 for the whole node), general (one shift per multiplier), or auto:
    fixed wherever it is as exact.
    """

    name: ClassVar[str] = "lower-dyadic"
    rescale: Literal["auto", "fixed", "general"] = "auto"

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Q/DQ is required, and an opset in which the operators' function bodies can be expressed."""
        if not has_qdq(graph):
            raise PreconditionError("the model has no QuantizeLinear: quantize it first (onnxq quantize)")
        if graph.opset < OPSET:
            raise PreconditionError(f"the model has opset {graph.opset}: run convert-opset{{version={OPSET}}} first")

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Lower what can be lowered, and report why the rest cannot."""
        work = lower_graph(graph, self.rescale)
        skipped = islands(graph, work)
        forms = ", ".join(f"{count} {form}" for form, count in sorted(work.forms().items()))
        notes = [f"rescales: {forms}"] if forms else []
        if work.float_biases:
            notes.append(
                f"{len(work.float_biases)} biases stored as floats became int32: off by up to "
                f"{max(work.float_biases):.2g} of a step of the layer's result"
            )
        return PassResult(work.lowered, tuple(skipped), tuple(notes))

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Every operator of com.onnxq conforms to its schema."""
        for node in graph.nodes:
            if node.domain == DOMAIN:
                problems = check_node(node)
                if problems:
                    raise PostconditionError(f"node {node.name} ({node.op}): {problems[0]}")
