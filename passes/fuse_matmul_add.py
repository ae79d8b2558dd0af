"""MatMul of two matrices and Add of a bias become one Gemm, which targets and quantizers recognize.

Y = A B + C    with A (M x K) and B (K x N) of rank 2 and C a constant that broadcasts to M x N
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.match import adopt_output, also_read, belongs, broadcasts_into, constant_values, output_ids, rank
from onnxq.graph.refusal import Refused
from onnxq.graph.shapes import is_floating
from onnxq.graph.sweep import sweep
from onnxq.patterns.linear_layers import matmul_add
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class FuseMatMulAdd(Pass):
    """Turn MatMul of two matrices and the Add of its bias into Gemm."""

    name: ClassVar[str] = "fuse-matmul-add"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        outputs = output_ids(graph)
        return PassResult(*sweep(graph, lambda g, node: _fuse(g, node, outputs)))


def _fuse(graph: gs.Graph, add: gs.Node, outputs: set[int]) -> bool | Refused:
    """Fuse an Add of a constant with the upstream MatMul; False for other nodes."""
    found = matmul_add(add)
    if found is None or not belongs(graph, found.product):
        return False
    product, values = found.product, constant_values(found.constant)
    assert values is not None
    ranks = [rank(t) for t in product.inputs]
    if ranks != [2, 2]:
        known = " and ".join("unknown" if r is None else str(r) for r in ranks)
        return Refused(f"{product.name} multiplies tensors of rank {known}")
    if not is_floating(values.dtype):
        return Refused("Gemm requires floating point")
    if not broadcasts_into(values.shape, found.result):
        return Refused("the operand it adds is larger than the product")
    refused = also_read(found.result, add, product, outputs)
    if refused:
        return refused
    product.op = "Gemm"
    product.inputs.append(found.constant)
    adopt_output(graph, add, found.result)
    return True
