"""Checking nodes of com.onnxq against their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from onnxq.numeric.integer_output import TYPES
from onnxq.operators.base.schema import DOMAIN, Attribute, Schema

LIMITS = {number: (int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for number, kind in TYPES.items()}  # of y_type
# The vectors of a rescale by the suffix of their names, and the range of their values.
VALUES = {"multiplier": (0, 2**31 - 1), "shift": (1, 62)}


def check_node(node: gs.Node | onnx.NodeProto) -> list[str]:
    """The errors of a node of com.onnxq, one line each; empty if it conforms to its schema.

    For an onnx-graphsurgeon node the element types and the values of multipliers and shifts are checked too.
    """
    from onnxq.operators.base.registry import SCHEMAS

    proto = isinstance(node, onnx.NodeProto)
    op = node.op_type if proto else node.op
    schema = SCHEMAS.get(op)
    if schema is None:
        return [f"{DOMAIN} has no operator {op}; it has {', '.join(SCHEMAS)}"]
    inputs, outputs = (node.input, node.output) if proto else (node.inputs, node.outputs)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute} if proto else node.attrs
    problems = []
    if len(inputs) != len(schema.inputs):
        names = ", ".join(i.name for i in schema.inputs)
        problems.append(f"{op} has {len(inputs)} inputs instead of {len(schema.inputs)}: {names}")
    elif not proto:
        problems += _check_tensors(schema, inputs)
    if len(outputs) != 1:
        problems.append(f"{op} has {len(outputs)} outputs instead of one")
    return problems + _check_attributes(schema, attributes)


def _check_tensors(schema: Schema, tensors: list[gs.Tensor]) -> list[str]:
    problems = []
    for slot, tensor in zip(schema.inputs, tensors, strict=True):
        if tensor.is_empty():
            problems.append(f"input {slot.name} is missing")
            continue
        found = _type_name(tensor)
        if found and found not in slot.types:
            problems.append(f"input {slot.name} is {found}, it must be {' or '.join(slot.types)}")
        if slot.constant and not isinstance(tensor, gs.Constant):
            problems.append(f"input {slot.name} must be an initializer")
        limits = VALUES.get(slot.name.rpartition("_")[2])
        if limits and isinstance(tensor, gs.Constant):
            values = np.asarray(tensor.values)
            if values.size and (values.min() < limits[0] or values.max() > limits[1]):
                problems.append(f"input {slot.name} has values outside {limits[0]} to {limits[1]}")
    return problems


def _type_name(tensor: gs.Tensor) -> str:
    if tensor.dtype is None:
        return ""
    number = tensor.dtype if isinstance(tensor.dtype, int) else helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return TensorProto.DataType.Name(number).lower() if number else ""


def _check_attributes(schema: Schema, found: Mapping[str, Any]) -> list[str]:
    problems = [f"{schema.name} has no attribute {name}" for name in found if schema.attribute(name) is None]
    for attribute in schema.attributes:
        if attribute.name not in found:
            if attribute.required:
                problems.append(f"attribute {attribute.name} is missing")
        elif problem := _check_attribute(attribute, found[attribute.name]):
            problems.append(f"attribute {attribute.name} {problem}")
    return problems or _check_range(schema, found)


def _check_attribute(attribute: Attribute, value: Any) -> str:
    values = value if attribute.is_list else [value]
    if not isinstance(values, (list, tuple, np.ndarray)) or not all(isinstance(v, (int, np.integer)) for v in values):
        return f"is {value!r}, it must be {'a list of integers' if attribute.is_list else 'an integer'}"
    if attribute.length is not None and len(values) != attribute.length:
        return f"has {len(values)} values instead of {attribute.length}"
    if attribute.least is not None and any(v < attribute.least for v in values):
        return f"is {value!r}, it must be at least {attribute.least}"
    return ""


def _check_range(schema: Schema, found: Mapping[str, Any]) -> list[str]:
    """Errors in the range of y, once all attributes have the right types."""
    if schema.attribute("y_type") is None:
        return []
    y_type, qmin, qmax = (found[name] for name in ("y_type", "qmin", "qmax"))
    if y_type not in LIMITS:
        return [f"attribute y_type is {y_type}, it must be 2 (uint8), 3 (int8), 5 (int16) or 6 (int32)"]
    low, high = LIMITS[y_type]
    if not low <= qmin <= qmax <= high:
        return [f"[qmin, qmax] is [{qmin}, {qmax}], not a range within y's type, {low} to {high}"]
    return []
