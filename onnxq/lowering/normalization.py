"""Softmax, LayerNormalization and RMSNormalization, after I-BERT."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import NumericError
from onnxq.graph.qdq import constant_reals
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import output
from onnxq.lowering.ledger import Work
from onnxq.lowering.requantize import one_scale
from onnxq.numeric.integer_norm import LAYER_NORM_LIMIT, exp_table, layer_norm_constants, softmax_multiplier
from onnxq.patterns.normalization import Norm, of_node

# Steps of a wide result, so that its multipliers still fit.
WIDE_REACH = float(2**24)


def lower_softmax(work: Work, node: gs.Node) -> None:
    """A Softmax of codes. Raises RefusedError."""
    x = work.codes(node.inputs[0])
    made = output.plan(
        work, node.outputs[0], np.asarray(1.0), None, np.asarray(0.0), np.asarray(1.0), reach=WIDE_REACH
    )  # fmt: skip
    try:
        multiplier, shift = softmax_multiplier(float(made.unit))
    except NumericError as err:
        raise RefusedError(str(err)) from None
    axis = int(node.attrs.get("axis", -1))
    sources = [node, *made.nodes()]
    target = output.settle(work, made, [node])
    constants = [
        work.constant(f"{target.name}_table", exp_table(float(x.scale))),
        work.constant(f"{target.name}_multiplier", multiplier),
        work.constant(f"{target.name}_shift", shift),
    ]
    work.own("Softmax", [x.tensor, *constants], target, {"axis": axis, **made.attributes()}, sources)


def lower_layer_norm(work: Work, node: gs.Node) -> None:
    """LayerNormalization or RMSNormalization along the last axis. Raises RefusedError."""
    shape = node.inputs[0].shape
    axis = int(node.attrs.get("axis", -1))
    if shape is None or axis % len(shape) != len(shape) - 1:
        raise RefusedError("it normalizes over more than the last axis, or its rank is unknown")
    lower_norm(work, of_node(node))


def lower_norm(work: Work, norm: Norm) -> None:
    """A normalization along the last axis, one node or decomposed. Raises RefusedError."""
    if norm.x.shape is None:
        raise RefusedError("its rank is unknown")
    length = norm.x.shape[-1]
    if not isinstance(length, int):
        raise RefusedError(f"the length of the axis that it normalizes is unknown: {length}")
    gamma, beta = _constant(norm.gamma, 1.0, length), _constant(norm.beta, 0.0, length)
    nodes = [norm.root, *(n for n in norm.nodes if n is not norm.root)]
    value = work.integers(norm.x)
    value = one_scale(work, value, norm.x.name, nodes, reach=float(LAYER_NORM_LIMIT - 1))
    reach = float(np.sqrt(length)) * np.abs(gamma) + np.abs(beta)
    largest = np.asarray(float(reach.max()))
    made = output.plan(work, norm.root.outputs[0], np.asarray(1.0), None, -largest, largest, reach=WIDE_REACH)
    try:
        found = layer_norm_constants(gamma, beta, norm.epsilon, length, float(value.scale), float(made.unit))
    except NumericError as err:
        raise RefusedError(str(err)) from None
    sources = [*nodes, *made.nodes()]
    target = output.settle(work, made, nodes)
    constants = [
        work.constant(f"{target.name}_{name}", values)
        for name, values in (("gamma", found.gamma), ("beta", found.beta), ("shift", found.shift))
    ]
    attrs = {
        "epsilon": found.epsilon,
        "center": int(norm.center),
        "x_zero_point": value.zero_point,
        **made.attributes(),
    }
    work.own("LayerNorm", [value.tensor, *constants], target, attrs, sources)


def _constant(tensor: gs.Tensor | None, default: float, length: int) -> np.ndarray:
    """A constant factor or addend: a scalar, or one value per element of a row."""
    if tensor is None:
        return np.asarray([default])
    values = constant_reals(tensor)
    if values is None or not np.isfinite(values).all():
        raise RefusedError(f"{tensor.name} is not finite, or computed at run time")
    if values.size not in (1, length) or (values.size > 1 and values.shape[-1] != values.size):
        raise RefusedError(f"{tensor.name} does not have one value per element of a row")
    return values.reshape(-1).astype(np.float64)


HANDLERS = {
    "Softmax": lower_softmax,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), lower_layer_norm),
}
