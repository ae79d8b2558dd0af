"""Write AveragePool with dilations as a depthwise Conv, which has them in integers.

onnxruntime's integer AveragePool has no dilations, and 1.31 does not load a model with the float one between Q/DQ.
Weights of 1/k are exact in integers: all of them are the largest code. What cannot be written so stays in float, and a
Max of one input, which changes nothing, keeps the QuantizeLinear of its result away from it.

  Y = AveragePool<dilations>(X)    Y = Conv(X, 1/k)           windows hold k elements everywhere
                                   Y = Conv(X, 1/k) · k/n     n elements in each window, where padding does not count
                                   Y = Max(AveragePool(X))    channels, or sizes that n depends on, are not known
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.match import Names
from onnxq.graph.movement import is_dilated_pool, keeps_apart
from onnxq.graph.refusal import Refused, RefusedError
from onnxq.graph.sweep import sweep
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class DilatedPoolToConv(Pass):
    """Write AveragePool with dilations as a depthwise Conv."""

    name: ClassVar[str] = "dilated-pool-to-conv"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        names = Names(graph)
        changed, skipped = sweep(graph, lambda g, node: is_dilated_pool(node) and _rewrite(g, node, names))
        apart = sum(_set_apart(g, names) for g in all_graphs(graph))
        return PassResult(changed + apart, skipped)


def _set_apart(graph: gs.Graph, names: Names) -> int:
    """A Max of one input behind each pool that is left; returns how many were missing."""
    found = [n for n in graph.nodes if is_dilated_pool(n) and not _is_apart(n)]
    for node in found:
        y = node.outputs[0]
        pooled = gs.Variable(names.fresh(f"{node.name}_pooled"), y.dtype, y.shape)
        node.outputs = [pooled]
        after = gs.Node("Max", names.fresh(f"{node.name}_Max"), {}, [pooled], [y])
        graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node) + 1, after)
    return len(found)


def _is_apart(node: gs.Node) -> bool:
    return all(keeps_apart(reader) for reader in node.outputs[0].outputs) and bool(node.outputs[0].outputs)


def _rewrite(graph: gs.Graph, node: gs.Node, names: Names) -> bool | Refused:
    # Loaded when needed: few models have such a pool, and the room is large.
    from onnxq.lowering.pooling import divisors
    from onnxq.lowering.windows import disputed_padding, sizes_of, windows_of

    x, y = node.inputs[0], node.outputs[0]
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    rank = len(kernel)
    if x.shape is None or not isinstance(x.shape[1], int) or x.dtype is None:
        return Refused("it has dilations, and its number of channels is not known")
    if (disputed := disputed_padding(node)) is not None:
        return disputed
    if rank > 2:
        return Refused(f"it has dilations and pools along {rank} axes")
    try:
        sizes = sizes_of(x, rank)
        windows = windows_of(node, kernel, sizes)
        counts = divisors(node, windows, [1, *sizes] if rank == 1 else sizes)
    except RefusedError as err:
        return Refused(f"it has dilations, and {err}")
    channels, elements = x.shape[1], int(np.prod(kernel))
    weight = gs.Constant(
        names.fresh(f"{node.name}_weight"), np.full((channels, 1, *kernel), 1 / elements, np.dtype(x.dtype))
    )
    pads = windows.pads if rank == 2 else windows.pads[1::2]
    attrs = {
        "group": channels,
        "kernel_shape": kernel,
        "strides": list(windows.strides[-rank:]),
        "dilations": list(windows.dilations[-rank:]),
        "pads": list(pads),
    }
    is_even = counts.size == 1 and float(counts.reshape(-1)[0]) == elements
    node.op, node.attrs, node.inputs = "Conv", attrs, [x, weight]
    if not is_even:
        shares = elements / counts.reshape(counts.shape[:2] if counts.size > 1 else (1, 1))
        factor = shares if rank == 2 else shares[0]
        sums = gs.Variable(names.fresh(f"{node.name}_sums"), x.dtype, y.shape)
        node.outputs = [sums]
        scaled = gs.Constant(names.fresh(f"{node.name}_shares"), np.asarray(factor[None, None], np.dtype(x.dtype)))
        after = gs.Node("Mul", names.fresh(f"{node.name}_Mul"), {}, [sums, scaled], [y])
        graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node) + 1, after)
    return True
