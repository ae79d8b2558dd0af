"""MatMul of two matrices and Add of a bias: one Gemm, as targets and quantizers know it.

Y = A B + C    with A (M x K) and B (K x N) of rank 2 and C a constant that broadcasts to M x N
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.match import (
    MatchFailure,
    adopt_output,
    belongs,
    broadcasts_into,
    constant_values,
    consumers,
    is_constant,
    is_op,
    output_ids,
    producer,
    rank,
    sole_consumer,
)
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class FuseMatMulAdd(Pass):
    """Turn MatMul of two matrices and the Add of its bias into Gemm."""

    name: ClassVar[str] = "fuse-matmul-add"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        outputs = output_ids(graph)
        changed = 0
        skipped = []
        for g in list(all_graphs(graph)):
            for node in list(g.nodes):
                reason = _fuse(g, node, outputs)
                if reason:
                    skipped.append(MatchFailure(reason, node.name))
                changed += reason is None
        return PassResult(changed, tuple(skipped))


def _fuse(graph: gs.Graph, add: gs.Node, outputs: set[int]) -> str | None:
    """Why an Add after a MatMul stays, None if it was fused, "" if it is no such Add."""
    if not is_op(add, "Add") or len(add.inputs) != 2:
        return ""
    index = 1 if is_constant(add.inputs[1]) else 0
    bias, values = add.inputs[index], constant_values(add.inputs[index])
    result = add.inputs[1 - index]
    product = producer(result)
    if values is None or product is None or not is_op(product, "MatMul") or not belongs(graph, product):
        return ""
    ranks = [rank(t) for t in product.inputs]
    if ranks != [2, 2]:
        known = " and ".join("unknown" if r is None else str(r) for r in ranks)
        return f"{product.name} multiplies tensors of rank {known}"
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        return "Gemm is for floating point"
    if not broadcasts_into(values.shape, result):
        return "what it adds is larger than the product"
    if sole_consumer(result, outputs) is not add:
        others = [n.name for n in consumers(result) if n is not add]
        return f"the output of {product.name} is also " + (f"read by {others[0]}" if others else "a graph output")
    product.op = "Gemm"
    product.inputs.append(bias)
    adopt_output(graph, add, result)
    return None
