"""Why a node that a profile quantizes cannot be: types, constants, shapes of its operands. Nothing is edited."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import constant_values, input_at, is_constant, is_float, producer, scalar_value
from onnxq.graph.movement import is_dilated_pool
from onnxq.graph.refusal import Refused
from onnxq.patterns.resampling import resize_computes
from onnxq.profiles.schema import Profile

SUMS = ("Add", "Sum")
BINARY = ("Add", "Sum", "Sub", "Mul", "Div", "Max", "Min")


def unfit(node: gs.Node, profile: Profile, masks: bool = False) -> Refused | None:
    """Why a node that the profile quantizes cannot be; None if it can. masks: whether constants may be −infinity."""
    data = [t for t in node.inputs if not t.is_empty()]
    if not data:
        return Refused("it has no input")
    if any(_from_dequantize(t) for t in data if not is_constant(t)):
        return Refused("already quantized")
    if node.op in LINEAR_OPS:
        return _unfit_linear(node, profile)
    if is_dilated_pool(node):
        return Refused("onnxruntime has no integer AveragePool with dilations")
    rule = profile.rule(node.op)
    if not all(is_float(t) for t in data if node.op in (*BINARY, "Concat")) or not is_float(data[0]):
        return Refused(f"its input is not float32 ({_dtype_name(data[0])})")
    if all(is_constant(t) for t in data):
        return Refused("all its inputs are constant")
    constants = [v for t in data if (v := constant_values(t)) is not None]
    if constants and node.op in (*BINARY, "Concat"):
        if not rule.constants:
            return Refused("one operand is a constant")
        if not all(v.size and (np.isfinite(v) | (masks & np.isneginf(v))).all() for v in constants):
            return Refused("its constant operand is empty or not finite")
        if node.op == "Concat" and profile.graph.concat == "shared":
            return Refused("one operand is a constant, which cannot share the scale of the others")
    if node.op in BINARY:
        if len(data) == 1:
            return Refused("it has one operand, which it does not change")
        if len(data) > 2:
            return Refused(f"it has {len(data)} operands, two are supported")
        if node.op == "Div" and rule.float_constants and not is_constant(data[1]):
            return Refused("it divides by an activation")
    return None


def scheme_refuses(node: gs.Node, profile: Profile) -> Refused | None:
    """Why the profile's graph rules leave a sum or a Concat in float; None where they do not."""
    if node.op in SUMS and profile.graph.scheme == 1:
        return Refused("graph scheme 1 keeps adds in float")
    if node.op == "Concat" and profile.graph.concat == "float":
        return Refused(f"profile {profile.name} places no Q/DQ for Concat")
    return None


def may_stay_float(node: gs.Node, index: int) -> bool:
    """Whether a constant operand need not be quantized: added, or one factor for the tensor or for each channel."""
    values = constant_values(node.inputs[index])
    return values is not None and (node.op not in ("Mul", "Div") or sum(d != 1 for d in values.shape) <= 1)


def unfit_mover(node: gs.Node) -> Refused | None:
    """Why an operator that moves values on the target does more than that in this node; None if it does not."""
    if node.op == "Resize":
        return resize_computes(node)
    if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant":
        tensor = input_at(node, 2)
        if (tensor is not None and scalar_value(tensor) != 0) or node.attrs.get("value", 0.0) != 0:
            return Refused("it pads with something else than zeros")
    return None


def _unfit_linear(node: gs.Node, profile: Profile) -> Refused | None:
    x, w = node.inputs[0], node.inputs[1]
    if not is_float(x) or not is_float(w):
        return Refused(f"its operands are not float32 ({_dtype_name(x)}, {_dtype_name(w)})")
    if is_constant(x) and (is_constant(w) or node.op != "MatMul"):
        return Refused("its data input is a constant")
    if not is_constant(w) and not is_constant(x):
        if _from_dequantize(w):
            return Refused("already quantized")
        if node.op != "MatMul":
            return Refused("its weight is computed at run time")
        if not profile.rule(node.op).dynamic:
            return Refused(f"profile {profile.name} does not quantize products of two activations")
        return None
    values = constant_values(w if is_constant(w) else x)
    assert values is not None
    if values.size == 0:
        return Refused("its weight is empty")
    if not np.isfinite(values).all():
        return Refused("its weight holds NaN or infinity")
    return None


def _from_dequantize(tensor: gs.Tensor) -> bool:
    node = producer(tensor)
    return node is not None and node.op == "DequantizeLinear"


def _dtype_name(tensor: gs.Tensor) -> str:
    return str(tensor.dtype) if tensor.dtype is not None else "type unknown"
