"""Operators that move or pick values, on integers: the standard operator on codes; max pooling has its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import constant_values, replace_everywhere
from onnxq.graph.qdq import dequantizer, is_quantized_constant
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import downstream, nhwc
from onnxq.lowering.integers import EIGHT_BIT, RANGES, Integers, dequantized
from onnxq.lowering.ledger import Work
from onnxq.lowering.movers import ANY_TYPE, EIGHT_BIT_ONLY, MOVERS, PICKERS, VIEWS, computes, pad_value
from onnxq.lowering.requantize import one_scale, to_codes
from onnxq.lowering.windows import sizes_of, windows_of


def lower_mover(work: Work, node: gs.Node) -> None:
    """A node that only moves or picks values of its first input. Raises RefusedError."""
    refused = computes(node)
    if refused is not None:
        raise RefusedError(refused.reason)
    if node.op in VIEWS and node.inputs[0] not in work.values and id(node.outputs[0]) not in work.outputs:
        replace_everywhere(work.graph, node.outputs[0], node.inputs[0])  # of a constant
        work.take(node)
        return
    value = _data(work, node.inputs[0])
    codes = downstream.wanted(work, node.inputs[0] if len(node.outputs) > 1 else node.outputs[0])
    if node.op in VIEWS:
        work.define(node.outputs[0], value)
        work.take(node)
        return
    narrow = value.type in EIGHT_BIT and value.axis is None
    padding = pad_value(node) if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant" else None
    odd_padding = padding is not None and not _on_grid(value, padding)
    is_rescaled = (not narrow or odd_padding) and codes is not None
    if "int16" in (codes.type if is_rescaled and codes is not None else value.type) and node.op not in ANY_TYPE:
        raise RefusedError(f"onnxruntime has no {node.op} of int16")
    if is_rescaled and codes is not None:
        value = to_codes(work, value, codes, node.inputs[0].name, [node])
    elif odd_padding and not value.wide:
        raise RefusedError(f"it fills in {padding:g}, which is not a code of its input")
    elif value.wide and node.op in EIGHT_BIT_ONLY:
        raise RefusedError("its input is wide: no QuantizeLinear precedes or follows it")
    if value.axis is not None:
        value = _follow_axis(node, value) or one_scale(work, value, node.inputs[0].name, [node])
    if node.op == "MaxPool" or (node.op == "GlobalMaxPool" and _sizes(node) is not None):
        _max_pool(work, node, value)
    elif node.op == "GlobalMaxPool":
        axes = work.constant(f"{node.name}_axes", np.arange(2, _rank(node), dtype=np.int64))
        _emit(work, node, value, "ReduceMax", [axes], {"keepdims": 1})
    else:
        rest = list(node.inputs[1:])
        if padding is not None:
            code = value.zero_point + round(padding / float(value.scale))
            value = replace(value, low=np.minimum(value.low, code), high=np.maximum(value.high, code))
            constant = work.constant(f"{node.name}_value", np.array(code, np.dtype(value.type)))
            rest = [rest[0] if rest else _old_pads(work, node), constant, *rest[2:]]
        _emit(work, node, value, node.op, rest, node.attrs)


def _data(work: Work, tensor: gs.Tensor) -> Integers:
    """The integers to move: of an activation, or a constant table of codes (embeddings)."""
    if not is_quantized_constant(tensor):
        return work.integers(tensor)
    node = dequantizer(tensor)
    assert node is not None
    value = dequantized(node) if constant_values(node.inputs[0]) is not None else None
    if value is None or value.type not in EIGHT_BIT or value.axis is not None:
        raise RefusedError("its data is a constant with more than one scale or without 8-bit codes")
    return value


def _on_grid(value: Integers, real: float) -> bool:
    """Whether a real number is exactly one of the codes."""
    if value.axis is not None:
        return real == 0
    code = value.zero_point + np.rint(real / float(value.scale))
    low, high = RANGES[value.type]
    return bool(low <= code <= high and (code - value.zero_point) * float(value.scale) == real)


def _follow_axis(node: gs.Node, value: Integers) -> Integers | None:
    """The value with its channel axis as moved by a Transpose; None for other operators."""
    if node.op != "Transpose" or value.axis is None or value.tensor.shape is None:
        return None
    perm = list(node.attrs.get("perm") or reversed(range(len(value.tensor.shape))))
    return replace(value, axis=perm.index(value.axis))


def _old_pads(work: Work, node: gs.Node) -> gs.Tensor:
    return work.constant(f"{node.name}_pads", np.asarray(node.attrs["pads"], np.int64))


def _rank(node: gs.Node) -> int:
    shape = node.inputs[0].shape
    if shape is None:
        raise RefusedError("the rank of its input is unknown")
    return len(shape)


def _sizes(node: gs.Node) -> list[int] | None:
    """Sizes along the spatial axes, if all are known."""
    shape = node.inputs[0].shape
    sizes = None if shape is None else list(shape[2:])
    return sizes if sizes is not None and all(isinstance(d, int) for d in sizes) else None


def _max_pool(work: Work, node: gs.Node, value: Integers) -> None:
    rank = _rank(node) - 2
    if rank not in (1, 2):
        raise RefusedError(f"it pools along {rank} axes")
    sizes = sizes_of(node.inputs[0], rank)
    kernel = [int(d) for d in (sizes if node.op == "GlobalMaxPool" else node.attrs["kernel_shape"])]  # type: ignore[arg-type]
    windows = windows_of(node, kernel, sizes)
    target = _target(work, node.outputs[0], value)
    picture = nhwc.image(work, value.tensor, rank)
    made = nhwc.new_image(work, target, rank)
    work.define(node.outputs[0], replace(value, tensor=target))
    work.take(node)
    attrs = {"kernel_shape": list(windows.kernel), **windows.attributes()}
    work.own("MaxPool", [picture], made, attrs, [node], result=target)
    nhwc.leave(work, made, target, rank)


def _emit(work: Work, node: gs.Node, value: Integers, op: str, rest: list[gs.Tensor], attrs: dict[str, object]) -> None:
    """The standard operator on the codes."""
    attrs = {k: v for k, v in attrs.items() if not (op == "Pad" and k in ("pads", "value"))}
    outputs = list(node.outputs)
    targets = [t if t.is_empty() else _target(work, t, value) for t in outputs]
    for old, new in zip(outputs, targets, strict=True):
        if not old.is_empty():
            work.define(old, replace(value, tensor=new))
    name = node.name
    work.take(node)
    work.replacement(op, [value.tensor, *rest], targets, attrs, name)


def _target(work: Work, tensor: gs.Tensor, value: Integers) -> gs.Variable:
    return work.variable(f"{tensor.name}_{'wide' if value.wide else 'codes'}", value.type, tensor.shape)


HANDLERS = dict.fromkeys((*MOVERS, *PICKERS), lower_mover)
