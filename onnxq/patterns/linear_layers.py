"""Convolutions and matrix products as W u + c, and the two ways to fold a per-channel a x + b into them.

New weights and biases are new constants: shared constants are never edited. The algebra is in numeric/affine.py, with
the same symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.axes import LINEAR_OPS, channel_axis
from onnxq.graph.match import Names, constant_values, consumers, input_at, is_constant, is_op, producer, sole_consumer
from onnxq.graph.refusal import Refused
from onnxq.graph.shapes import is_floating
from onnxq.numeric import affine
from onnxq.numeric.affine import Affine


@dataclass(frozen=True)
class LinearLayer:
    """A Conv, ConvTranspose, Gemm or MatMul. add: the Add of a MatMul's constant per-channel bias."""

    node: gs.Node
    add: gs.Node | None = None

    @property
    def output(self) -> gs.Tensor:
        """The tensor W u + c."""
        return (self.add or self.node).outputs[0]


def layer_making(tensor: gs.Tensor, outputs: set[int]) -> LinearLayer | None:
    """The linear layer whose result, bias included, is this tensor. outputs: match.output_ids of the graph."""
    node = producer(tensor)
    if node is None:
        return None
    if is_op(node, *LINEAR_OPS):
        return LinearLayer(node)
    product = _product_with_bias(node, outputs)
    return None if product is None else LinearLayer(product, node)


def layer_reading(node: gs.Node, outputs: set[int]) -> LinearLayer:
    """The linear layer of this node (of LINEAR_OPS), with the Add after it if that is a MatMul's bias."""
    after = sole_consumer(node.outputs[0], outputs)
    if is_op(node, "MatMul") and after is not None and _product_with_bias(after, outputs) is node:
        return LinearLayer(node, after)
    return LinearLayer(node)


@dataclass(frozen=True)
class MatMulAdd:
    """An Add of a constant and the result of a MatMul. index: of the constant among the Add's inputs."""

    add: gs.Node
    product: gs.Node
    index: int

    @property
    def constant(self) -> gs.Constant:
        """What is added."""
        return self.add.inputs[self.index]

    @property
    def result(self) -> gs.Tensor:
        """The MatMul's result, before the sum."""
        return self.add.inputs[1 - self.index]


def matmul_add(add: gs.Node) -> MatMulAdd | None:
    """The node as the sum of a MatMul and a constant of any shape; None for other nodes. Others may read the MatMul."""
    if not is_op(add, "Add") or len(add.inputs) != 2:
        return None
    index = 1 if is_constant(add.inputs[1]) else 0
    product = producer(add.inputs[1 - index])
    if not is_constant(add.inputs[index]) or product is None or not is_op(product, "MatMul"):
        return None
    return MatMulAdd(add, product, index)


def _product_with_bias(add: gs.Node, outputs: set[int]) -> gs.Node | None:
    """The MatMul whose only reader is this Add of one number per channel (the last axis) or of a scalar."""
    found = matmul_add(add)
    if found is None or sole_consumer(found.result, outputs) is not add:
        return None
    bias, weight = tuple(found.constant.shape), found.product.inputs[1].shape
    if weight is None or len(weight) < 2 or len(bias) > 2 or any(d != 1 for d in bias[:-1]):
        return None
    return found.product if not bias or bias[-1] in (1, weight[-1]) else None


def fold_after(layer: LinearLayer, step: Affine, graph: gs.Graph, names: Names, outputs: set[int]) -> Refused | None:
    """Make the layer's output a (W u + c) + b. step.a, step.b: one value per channel, or one for all."""
    refused = _unfit(layer, outputs)
    if refused:
        return refused
    node = layer.node
    weight = np.asarray(node.inputs[1].values)
    axis, groups = channel_axis(node), int(node.attrs.get("group", 1))
    assert axis is not None
    channels = weight.shape[axis] * (groups if node.op == "ConvTranspose" else 1)
    a, b = (np.broadcast_to(v.reshape(-1), (channels,)) for v in (step.a, step.b))
    if node.op == "ConvTranspose":
        scaled = affine.scale_grouped(weight, a, groups)
    else:
        scaled = affine.scale_axis(weight, a, axis)
    c = _bias(layer)
    return _store(layer, scaled, None if c is None and not np.any(b) else a * (0 if c is None else c) + b, graph, names)


def fold_before(layer: LinearLayer, step: Affine, graph: gs.Graph, names: Names, outputs: set[int]) -> Refused | None:
    """Make the layer compute W (a u + b) + c from u. step.a, step.b: one value per input channel.

    Exact only without padding, unless b is 0: the padded values are 0 after the step, not before it.
    The caller rewires the layer's input.
    """
    node = layer.node
    refused = _unfit(layer, outputs)
    if refused:
        return refused
    weight = np.asarray(node.inputs[1].values)
    a, b = step.a, step.b
    shifts = bool(np.any(b))
    groups = int(node.attrs.get("group", 1))
    if node.op == "Conv":
        if shifts and _pads(node, weight.ndim - 2):
            return Refused("the downstream convolution pads with zeros, which would need the shift too")
        scaled = affine.scale_grouped(weight, a, groups)
        shift = affine.response(weight, b, groups)
    elif node.op == "ConvTranspose":
        if shifts:
            return Refused("its shift contributes unequally to the outputs of the downstream transposed convolution")
        scaled, shift = affine.scale_axis(weight, a, 0), np.zeros(1)
    else:
        if node.op == "Gemm" and node.attrs.get("transA", 0):
            return Refused("the downstream Gemm transposes its input")
        if weight.ndim != 2:
            return Refused("the weight of the downstream MatMul is not a matrix")
        axis = 1 if node.op == "Gemm" and node.attrs.get("transB", 0) else 0
        scaled = affine.scale_axis(weight, a, axis)
        shift = affine.scale_axis(weight, b, axis).sum(axis=axis) * float(node.attrs.get("alpha", 1.0))
    c = _bias(layer)
    return _store(layer, scaled, c if not np.any(shift) else (0 if c is None else c) + shift, graph, names)


def _unfit(layer: LinearLayer, outputs: set[int]) -> Refused | None:
    """Why the weight and bias of the layer cannot be replaced."""
    node = layer.node
    weight = input_at(node, 1)
    if weight is None or not is_constant(weight):
        return Refused(f"the weight of {node.name} is computed at run time")
    if not is_floating(np.asarray(weight.values).dtype):
        return Refused(f"the weight of {node.name} is not floating point")
    others = [n.name for n in consumers(weight) if n is not node]
    if others:
        return Refused(f"the weight of {node.name} is shared with {others[0]}")
    if id(weight) in outputs or sum(t is weight for t in node.inputs) > 1:
        return Refused(f"the weight of {node.name} is used twice")
    if channel_axis(node) is None:
        return Refused(f"the weight of {node.name} has no channel axis")
    bias = input_at(node, 2)
    if bias is not None and not is_constant(bias):
        return Refused(f"the bias of {node.name} is computed at run time")
    return None


def _bias(layer: LinearLayer) -> NDArray[np.float64] | None:
    """c in float64; includes beta for a Gemm."""
    if layer.add is not None:
        values = next(v for v in map(constant_values, layer.add.inputs) if v is not None)
        return values.astype(np.float64)
    tensor = input_at(layer.node, 2)
    if tensor is None:
        return None
    return np.asarray(tensor.values).astype(np.float64) * float(layer.node.attrs.get("beta", 1.0))


def _store(
    layer: LinearLayer, weight: NDArray[np.float64], bias: NDArray[np.float64] | None, graph: gs.Graph, names: Names
) -> Refused | None:
    """Put new values into the layer, in the type of its weight."""
    node = layer.node
    old = node.inputs[1]
    dtype = np.asarray(old.values).dtype
    new_weight = affine.store(weight, dtype)
    new_bias = None if bias is None else affine.store(bias, dtype)
    if new_weight is None or (bias is not None and new_bias is None):
        return Refused(f"the folded weight or bias of {node.name} would overflow {dtype.name}")
    node.inputs[1] = gs.Constant(names.fresh(old.name) if old.outputs[1:] else old.name, new_weight)
    if new_bias is not None:
        _set_bias(layer, new_bias, graph, names)
    return None


def _set_bias(layer: LinearLayer, values: NDArray, graph: gs.Graph, names: Names) -> None:
    node = layer.node
    if layer.add is not None:
        index = 1 if is_constant(layer.add.inputs[1]) else 0
        layer.add.inputs[index] = _successor(layer.add.inputs[index], values, names)
    elif node.op == "MatMul":
        result = node.outputs[0]
        inner = gs.Variable(names.fresh(f"{result.name}_unbiased"), result.dtype, result.shape)
        node.outputs[0] = inner
        bias = gs.Constant(names.fresh(f"{node.name}_bias"), values)
        graph.nodes.append(gs.Node("Add", names.fresh(f"{node.name}_add"), {}, [inner, bias], [result]))
    else:
        node.attrs.pop("beta", None)
        if len(node.inputs) > 2:
            old = node.inputs[2]
            new = gs.Constant(names.fresh(f"{node.name}_bias"), values) if old.is_empty() else None
            node.inputs[2] = new or _successor(old, values, names)
        else:
            node.inputs.append(gs.Constant(names.fresh(f"{node.name}_bias"), values))


def _successor(old: gs.Constant, values: NDArray, names: Names) -> gs.Constant:
    """A constant that replaces `old`, under the same name if nothing else reads `old`."""
    return gs.Constant(old.name if len(old.outputs) == 1 else names.fresh(old.name), values)


def _pads(node: gs.Node, spatial: int) -> bool:
    """Whether a Conv may read padding."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        kernel = node.attrs.get("kernel_shape") or list(node.inputs[1].shape)[-spatial:]
        return any(k != 1 for k in kernel)
    return mode == "NOTSET" and any(node.attrs.get("pads", []))
