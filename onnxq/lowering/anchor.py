"""DequantizeLinears that onnxruntime would move, written such that it leaves them where they are."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import Names, constant_values, input_at
from onnxq.graph.movement import breaks_before_movement, is_moved
from onnxq.lowering.ledger import Work


def anchor(work: Work) -> None:
    """Rewrite every DequantizeLinear that onnxruntime would move and then reject; each computes the same as before.

    A zero point of 0 is left out, if the codes are int8; else the scale is repeated along a dimension of known size;
    else half of it is multiplied by 2 by an operator of its own. The graph is finished (emitter.Emitter.finish).
    """
    names = Names(work.graph)
    for node in list(work.graph.nodes):
        if not breaks_before_movement(node) or not is_moved(node.outputs[0]):
            continue
        scale, point = constant_values(node.inputs[1]), input_at(node, 2)
        zero = None if point is None else constant_values(point)
        if scale is None or scale.size != 1 or (point is not None and zero is None):
            continue  # several scales, or parameters known only at run time: it stays
        if zero is not None and not zero.any() and node.inputs[0].dtype == np.int8:
            del node.inputs[2]
            continue
        axis = _axis(node)
        if axis is None:
            _doubled(work, names, node, scale)
            continue
        node.attrs["axis"] = axis
        for i, values in ((1, scale), (2, zero)):
            if values is not None:
                repeated = np.full(node.inputs[0].shape[axis], values.reshape(()), values.dtype)
                node.inputs[i] = gs.Constant(names.fresh(f"{node.inputs[i].name}_repeated"), repeated)


def _axis(node: gs.Node) -> int | None:
    """The first dimension of known size above 1, that of the batch last."""
    sizes = next((t.shape for t in (node.inputs[0], node.outputs[0]) if t.shape is not None), None) or []
    known = [i for i, size in enumerate(sizes) if isinstance(size, int) and size > 1]
    return next((i for i in known if i), known[0] if known else None)


def _doubled(work: Work, names: Names, node: gs.Node, scale: np.ndarray) -> None:
    """Half of the scale, and an operator that multiplies by 2: exact, and onnxruntime moves nothing past it."""
    result = node.outputs[0]
    half = gs.Variable(names.fresh(f"{result.name}_half"), result.dtype, result.shape)
    node.inputs[1] = gs.Constant(names.fresh(f"{node.inputs[1].name}_half"), np.asarray(scale / 2, scale.dtype))
    node.outputs[0] = half
    two = gs.Constant(names.fresh(f"{result.name}_two"), np.asarray(2, scale.dtype))
    double = gs.Node("Mul", names.fresh(f"{result.name}_Mul"), {}, [half, two], [result])
    double.domain, double.metadata, double.doc_string = None, {}, ""
    work.graph.nodes.insert(next(i for i, n in enumerate(work.graph.nodes) if n is node) + 1, double)
    work.reasons[double] = "it keeps onnxruntime from moving the DequantizeLinear"
