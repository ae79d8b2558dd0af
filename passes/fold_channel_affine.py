"""Scales and shifts by constants, folded into the layer before them or into one another.

1. After a layer, W u + c: Mul, Div, Add and Sub with one number per channel (or one for all) are folded into W and c.
   Models converted from Caffe2 and similar tools have these instead of BatchNormalization.
2. A chain of them becomes one Mul and one Add, or only one of the two if a = 1 or b = 0.

The Add that is a MatMul's bias stays: a MatMul has no bias input. The algebra is in numeric/affine.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.context import PassContext
from onnxq.graph.match import (
    Names,
    adopt_output,
    also_read,
    belongs,
    broadcasts_into,
    constant_values,
    is_constant,
    is_op,
    output_ids,
    remove_nodes,
    sole_consumer,
)
from onnxq.graph.refusal import Refused
from onnxq.graph.shapes import is_floating
from onnxq.graph.sweep import sweep
from onnxq.numeric import affine
from onnxq.numeric.affine import Affine
from onnxq.patterns.linear_layers import LinearLayer, fold_after, layer_making
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class FoldChannelAffine(Pass):
    """Fold Mul and Add by constants into the layer before them, and chains of them into one pair."""

    name: ClassVar[str] = "fold-channel-affine"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        names, outputs = Names(graph), output_ids(graph)
        return PassResult(
            *sweep(
                graph,
                lambda g, node: _into_layer(g, node, names, outputs),
                lambda g, node: _merge_chain(g, node, names, outputs),
            )
        )


def _step(node: gs.Node) -> tuple[gs.Tensor, Affine] | None:
    """The input and the affine function of a node that scales or shifts by constants and keeps its input's shape."""
    if not is_op(node, "Mul", "Div", "Add", "Sub") or len(node.inputs) != 2 or "broadcast" in node.attrs:
        return None
    index = 1 if is_constant(node.inputs[1]) else 0
    values, source = constant_values(node.inputs[index]), node.inputs[1 - index]
    if values is None or is_constant(source) or not is_floating(values.dtype):
        return None
    if not broadcasts_into(values.shape, source):
        return None
    if node.op == "Mul":
        step = affine.scale(values)
    elif node.op == "Add":
        step = affine.shift(values)
    elif node.op == "Sub":
        step = affine.shift(-values.astype(np.float64)) if index else affine.scale(-1.0).then(affine.shift(values))
    elif index:
        step = affine.scale(affine.reciprocal(values))
    else:
        return None  # a constant divided by x
    return (source, step) if step.is_finite else None


def _into_layer(graph: gs.Graph, node: gs.Node, names: Names, outputs: set[int]) -> bool | Refused:
    """Fold a node that follows a layer into it; False for other nodes."""
    found = _step(node)
    if found is None:
        return False
    source, step = found
    layer = layer_making(source, outputs)
    if layer is None or layer.add is node or not belongs(graph, layer.node):
        return False
    if layer.node.op == "MatMul" and layer.add is None and node.op in ("Add", "Sub"):
        return False  # its bias
    refused = also_read(source, node, layer.node, outputs)
    if refused:
        return refused
    rank = None if source.shape is None else len(source.shape)
    a, b = (_by_channel(v, layer, rank) for v in (step.a, step.b))
    if a is None or b is None:
        return Refused("its operand is not per-channel")
    refused = fold_after(layer, Affine(a, b), graph, names, outputs)
    if refused:
        return refused
    adopt_output(graph, node, source)
    return True


def _by_channel(values: NDArray[np.float64], layer: LinearLayer, rank: int | None) -> NDArray[np.float64] | None:
    """The operand as one number per channel, (channels,) or (1,); None if it varies along another axis."""
    if values.size == 1:
        return values.reshape(-1)
    if rank is None:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    axis = rank - 1 if layer.node.op in ("MatMul", "Gemm") else 1
    return values.reshape(-1) if shape[axis] == values.size else None


def _merge_chain(graph: gs.Graph, node: gs.Node, names: Names, outputs: set[int]) -> int:
    """Rewrite the chain that starts at this node when fewer nodes do; returns how many were saved."""
    found = _step(node) if node.outputs else None
    if found is None:
        return 0
    source, total = found
    chain = [node]
    sizes = [max(total.a.size, total.b.size)]
    while True:
        following = sole_consumer(chain[-1].outputs[0], outputs)
        found = None if following is None else _step(following)
        if following is None or found is None or not belongs(graph, following):
            break
        combined = total.then(found[1])
        sizes.append(max(found[1].a.size, found[1].b.size))
        # Operands along different axes would be expanded to their product of sizes.
        if not combined.is_finite or max(combined.a.size, combined.b.size) > max(sizes):
            break
        total = combined
        chain.append(following)
    dtype = next(v for v in map(constant_values, node.inputs) if v is not None).dtype
    stored = {"Mul": affine.store(total.a, dtype), "Add": affine.store(total.b, dtype)}
    needed = [
        op for op, neutral in (("Mul", 1), ("Add", 0)) if np.any(getattr(total, "a" if op == "Mul" else "b") != neutral)
    ]
    needed = needed or ["Mul"]
    if len(needed) >= len(chain) or any(v is None for v in stored.values()):
        return 0
    result = chain[-1].outputs[0]
    remove_nodes(graph, chain)
    current = source
    for op in needed:
        made = (
            result
            if op == needed[-1]
            else gs.Variable(names.fresh(f"{result.name}_scaled"), source.dtype, source.shape)
        )
        constant = gs.Constant(names.fresh(f"{chain[0].name}_{op.lower()}_value"), stored[op])
        graph.nodes.append(gs.Node(op, names.fresh(f"{chain[0].name}_{op.lower()}"), {}, [current, constant], [made]))
        current = made
    return len(chain) - len(needed)
