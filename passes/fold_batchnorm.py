"""BatchNormalization folding.

In inference a BatchNormalization is y = a x + b per channel, with

    a = gamma / sqrt(var + epsilon)          b = beta - a * mean

1. After a layer, x = W u + c:                a x + b = (a W) u + (a c + b)
2. Before a layer, z = W y + c:               z = (W a) x + (c + sum(W b)); exact if b = 0 or the layer does not pad
3. Standalone:                                y = Mul(x, a) + b, one node fewer if a = 1 or b = 0

Layers are Conv and ConvTranspose (with groups), Gemm (alpha, beta, transB) and MatMul with or without an Add of a
constant. Everything is computed in float64 and stored in the type of the weight.

Refused, with the reason: training mode; parameters computed at run time; a layer result with other readers;
weights shared with another node or computed at run time; values that would overflow the weight's type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import (
    MatchFailure,
    Names,
    adopt_output,
    also_read,
    belongs,
    constant_values,
    editing,
    is_op,
    output_ids,
    rank,
    remove_nodes,
    sole_consumer,
)
from onnxq.graph.refusal import Refused
from onnxq.graph.walk import all_graphs
from onnxq.numeric import affine
from onnxq.numeric.affine import Affine
from onnxq.patterns.linear_layers import fold_after, fold_before, layer_making, layer_reading
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold BatchNormalization into the layer before or after it; the rest becomes a scale and a shift.

    epsilon_floor: the smallest epsilon to use, for models whose variances are too small (changes their values).
    standalone: turn what cannot be folded into Mul and Add; otherwise it stays unchanged.
    """

    name: ClassVar[str] = "fold-batchnorm"
    preserves_values: ClassVar[bool] = True
    epsilon_floor: float = 0.0
    standalone: bool = True

    def __post_init__(self) -> None:
        if self.epsilon_floor:
            object.__setattr__(self, "preserves_values", False)

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        names, outputs, opset = Names(graph), output_ids(graph), int(graph.opset)
        changed = 0
        skipped = []
        alone: dict[str, list[str]] = {}
        for g in list(all_graphs(graph)):
            with editing(g):
                left: list[tuple[gs.Node, Affine, Refused]] = []
                for node in [n for n in g.nodes if is_op(n, "BatchNormalization")]:
                    step = self.affine_of(node, opset, outputs)
                    if isinstance(step, Refused):
                        skipped.append(MatchFailure(step.reason, node.name))
                    elif refused := _into_layer_before(g, node, step, names, outputs):
                        left.append((node, step, refused))
                    else:
                        changed += 1
                for node, step, before in reversed(left):
                    after = _into_layer_after(g, node, step, names, outputs)
                    if after is None:
                        changed += 1
                        continue
                    reason = f"{before}; {after}"
                    refused = _stand_alone(g, node, step, names) if self.standalone else None
                    if self.standalone and refused is None:
                        alone.setdefault(reason, []).append(node.name)
                        changed += 1
                    else:
                        skipped.append(MatchFailure(reason if refused is None else f"{reason}; {refused}", node.name))
        notes = [f"{len(n)} became Mul and Add: {reason}: {_some(n)}" for reason, n in alone.items()]
        return PassResult(changed, tuple(skipped), tuple(notes))

    def affine_of(self, node: gs.Node, opset: int, outputs: set[int]) -> Affine | Refused:
        """a and b of one node, float64 (channels,)."""
        trains = node.attrs.get("training_mode", 0) if opset >= 14 else len(node.outputs) > 1
        if trains or (opset < 7 and not node.attrs.get("is_test", 0)):
            return Refused("is in training mode")
        if any(t.outputs or id(t) in outputs for t in node.outputs[1:]):
            return Refused("its statistics are used")
        if not node.attrs.get("spatial", 1):
            return Refused("normalizes each element separately (spatial=0)")
        parameters = [p for p in map(constant_values, node.inputs[1:5]) if p is not None]
        if len(parameters) < 4:
            return Refused("its parameters are computed at run time")
        gamma, beta, mean, var = parameters
        if len({p.shape for p in parameters}) > 1:
            return Refused(f"its parameters have shapes {', '.join(str(list(p.shape)) for p in parameters)}")
        epsilon = max(float(node.attrs.get("epsilon", 1e-5)), self.epsilon_floor)
        step = affine.batch_norm(gamma, beta, mean, var, epsilon)
        return step if step.is_finite else Refused("its variance plus epsilon is not positive (see epsilon_floor)")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _into_layer_before(graph: gs.Graph, node: gs.Node, step: Affine, names: Names, outputs: set[int]) -> Refused | None:
    source = node.inputs[0]
    layer = layer_making(source, outputs)
    if layer is None or not belongs(graph, layer.node):
        return Refused("no layer directly upstream")
    refused = also_read(source, node, layer.node, outputs)
    if refused:
        return refused
    if layer.node.op == "MatMul" and rank(source) != 2:
        return Refused(f"the channels of {layer.node.name} are not on axis 1")
    refused = fold_after(layer, step, graph, names, outputs)
    if refused is None:
        adopt_output(graph, node, source)
    return refused


def _into_layer_after(graph: gs.Graph, node: gs.Node, step: Affine, names: Names, outputs: set[int]) -> Refused | None:
    result = node.outputs[0]
    reader = sole_consumer(result, outputs)
    if reader is None or not is_op(reader, *LINEAR_OPS) or not belongs(graph, reader):
        return Refused("no layer as its only reader")
    if reader.inputs[0] is not result:
        return Refused(f"it is the weight or bias of {reader.name}")
    if any(t is result for t in reader.inputs[1:]):
        return Refused(f"{reader.name} reads it twice")
    if reader.op == "MatMul" and rank(result) != 2:
        return Refused(f"the channels of {reader.name} are not on axis 1")
    refused = fold_before(layer_reading(reader, outputs), step, graph, names, outputs)
    if refused is None:
        reader.inputs[0] = node.inputs[0]
        remove_nodes(graph, [node])
    return refused


def _stand_alone(graph: gs.Graph, node: gs.Node, step: Affine, names: Names) -> Refused | None:
    source, result = node.inputs[0], node.outputs[0]
    dims = rank(source)
    if dims is None:
        return Refused("its rank is unknown")
    dtype = constant_values(node.inputs[1]).dtype  # type: ignore[union-attr]
    if source.dtype is not None and not isinstance(source.dtype, int):
        dtype = np.dtype(source.dtype)
    shape = [-1, *[1] * (dims - 2)]
    stored = [affine.store(v.reshape(shape), dtype) for v in (step.a, step.b)]
    if any(v is None for v in stored):
        return Refused(f"its scale or shift would overflow {dtype.name}")
    steps = [
        (op, suffix, values)
        for op, suffix, values, needed in (
            ("Mul", "scale", stored[0], np.any(step.a != 1) or not np.any(step.b)),
            ("Add", "shift", stored[1], np.any(step.b)),
        )
        if needed
    ]
    remove_nodes(graph, [node])
    current = source
    for i, (op, suffix, values) in enumerate(steps):
        last = i == len(steps) - 1
        made = result if last else gs.Variable(names.fresh(f"{result.name}_{suffix}d"), source.dtype, source.shape)
        constant = gs.Constant(names.fresh(f"{node.name}_{suffix}_value"), values)
        graph.nodes.append(gs.Node(op, names.fresh(f"{node.name}_{suffix}"), {}, [current, constant], [made]))
        current = made
    return None
