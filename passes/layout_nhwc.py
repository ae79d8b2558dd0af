"""Channels-last between our operators: Transposes move through operators that allow it, and cancel.

Lowering puts Transpose(0,2,3,1) before and Transpose(0,3,1,2) after each convolution and pool, which are always
channels-last. For every operator in between, onnxq.layout decides whether it can compute the same on transposed
operands, with its axes, pads and constants rewritten. Among all such choices the pass takes the one with the fewest
bytes moved by Transposes (if sizes are unknown, the fewest Transposes), where those between our operators count half
more:

1. Conv → T → Add ← T ← Conv,  Add → T⁻¹ → Conv        Add computes channels-last; no Transpose is left
2. x → T → QuantizeLinear                              x → QuantizeLinear → T: a quarter of the bytes
3. T → Flatten → Gemm with constant weights            Flatten → Gemm with the rows of its weights permuted
4. T of [N, 1, 1, C], T⁻¹ of [N, C, 1, 1]              a Reshape, which moves no data, or nothing at all
5. remaining 8-bit T upstream of one of our operators  ChannelsLast, which has its own kernel

Graph inputs and outputs keep their names, order and types. The output of a channels-last layer gets the name of its
channels-first copy, and a node whose tensors are no longer in the order of the original tensors is marked:
metadata `onnxq.layout` = "0,2,3,1" means transposed by this permutation; `onnxq.flattened` = "8,6,6|1,2,0" means that
the last dimension, which joins dimensions of sizes 8, 6, 6, joins them transposed by 1, 2, 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.errors import PreconditionError
from onnxq.graph import topology
from onnxq.graph.match import MatchFailure, Names
from onnxq.graph.refusal import Refused
from onnxq.layout.choice import Layouts
from onnxq.layout.copies import Copy, Value
from onnxq.layout.flip import Given
from onnxq.layout.perms import inverse
from onnxq.layout.rewrite import carry_out, channels_last_instead, name_by_layer, reshape_instead
from onnxq.layout.rules import propose
from onnxq.pipeline import Pass, PassResult

OPSET_MIN = 18  # from here on axes are inputs of all reductions


@dataclass(frozen=True)
class LayoutNhwc(Pass):
    """Keep tensors channels-last between our operators: Transposes move to the borders of the integer part."""

    name: ClassVar[str] = "layout-nhwc"
    preserves_values: ClassVar[bool] = True

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        """Opset 18 or later."""
        if int(graph.opset) < OPSET_MIN:
            raise PreconditionError(
                f"opset {graph.opset}: this pass needs {OPSET_MIN} or later; run convert-opset{{version=21}} first"
            )

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Repeat until nothing improves."""
        names = Names(graph)
        name_by_layer(Layouts(graph), names)
        changed = carry_out(graph, Layouts(graph), {}, names)
        while True:
            topology.toposort(graph)
            layouts = Layouts(graph)
            choice = layouts.better()
            if choice:
                step = carry_out(graph, layouts, choice, names)
            else:
                step = reshape_instead(graph, layouts, names) + channels_last_instead(layouts)
            changed += step
            if not step:
                return PassResult(changed, tuple(_held(layouts)))


def _held(layouts: Layouts) -> list[MatchFailure]:
    """Why the remaining Transposes between our operators stay."""
    found = []
    for value in layouts.values:
        for copy in value.copies[1:]:
            if copy.node is not None and any(r.inner and r.layout == copy.layout for r in value.readers):
                found.append(MatchFailure("; ".join(_holders(layouts, value, copy)), copy.node.name))
    return found


def _holders(layouts: Layouts, value: Value, copy: Copy) -> list[str]:
    sides = [(r.node, Given(inverse(copy.layout), r.index, False, layouts.kept)) for r in value.readers]
    readers = [side for side, r in zip(sides, value.readers, strict=True) if r.layout == copy.layout]
    assert value.maker is not None
    maker = (value.maker, Given(copy.layout, value.slot, True, layouts.kept))
    reasons = []
    for node, given in (maker, *readers):
        flip = propose(node, given)
        reason = flip.reason if isinstance(flip, Refused) else "movable, but at a higher cost"
        reasons.append(f"{node.op} {node.name}: {reason}")
    return reasons
