"""Remove nodes that forward their input unchanged, where shape, type and values provably stay the same.

Always: Identity; Dropout in inference; Concat, Sum, Max, Min and Mean of one input; Split into one output.
By parameters: Cast to the tensor's own type; Add and Sub of 0; Mul, Div and Pow by 1; Clip without bounds; Pad
by 0; Tile by 1; Resize and Upsample by 1; AveragePool and MaxPool of 1x1; Slice of everything; Expand to 1s.
By shapes: Reshape, Flatten, Squeeze, Unsqueeze and Transpose that leave every dimension in place; a global pool
of 1x1.

A node between a graph input and a graph output, between a constant and an output, or between two outputs stays: a
graph output must be produced by a node and have its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.context import PassContext
from onnxq.graph.match import (
    STANDARD_DOMAINS,
    broadcasts_into,
    bypass,
    constant_values,
    input_at,
    is_constant,
    output_ids,
    rank,
)
from onnxq.graph.movement import keeps_apart
from onnxq.graph.refusal import Refused
from onnxq.graph.shapes import element_type, named_type, static_shape
from onnxq.graph.sweep import sweep
from onnxq.pipeline import Pass, PassResult

# The end of a Slice is beyond any dimension from here on.
UNBOUNDED = (1 << 31) - 1


@dataclass(frozen=True)
class EliminateIdentity(Pass):
    """Remove Identity, inference Dropout, and no-op Pad, Reshape, Cast and the like."""

    name: ClassVar[str] = "eliminate-identity"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        opset, outputs = int(graph.opset), output_ids(graph)
        return PassResult(*sweep(graph, lambda g, node: _eliminate(g, node, opset, outputs)))


def _eliminate(graph: gs.Graph, node: gs.Node, opset: int, outputs: set[int]) -> bool | Refused:
    source = unchanged_input(node, opset)
    if source is None:
        return False
    refused = _other_outputs(node, outputs) or bypass(graph, node, source, outputs)
    return refused or True


def unchanged_input(node: gs.Node, opset: int) -> gs.Tensor | None:
    """The input that always equals the node's first output in values, shape and type; None if there is none."""
    if node.domain not in STANDARD_DOMAINS or not node.inputs or not node.outputs:
        return None
    if node.op in ("Add", "Mul", "Sub", "Div", "Pow"):
        return _neutral_operand(node)
    rule = RULES.get(node.op)
    return node.inputs[0] if rule is not None and rule(node, opset) else None


def _other_outputs(node: gs.Node, outputs: set[int]) -> Refused | None:
    used = [t for t in node.outputs[1:] if t.outputs or id(t) in outputs]
    return Refused(f"its other output {used[0].name} is used") if used else None


def _always(node: gs.Node, opset: int) -> bool:
    return True


def _one_input(node: gs.Node, opset: int) -> bool:
    return len(node.inputs) == 1 and not keeps_apart(node)


def _one_output(node: gs.Node, opset: int) -> bool:
    return len(node.outputs) == 1


def _dropout(node: gs.Node, opset: int) -> bool:
    if opset < 7:
        return bool(node.attrs.get("is_test", 0))
    training = input_at(node, 2)
    values = np.zeros(1) if training is None else constant_values(training)
    return values is not None and not np.any(values)


def _cast(node: gs.Node, opset: int) -> bool:
    target = input_at(node, 1)
    wanted = element_type(target) if target is not None else named_type(node.attrs.get("to", 0))
    return wanted != 0 and element_type(node.inputs[0]) == wanted


def _neutral_operand(node: gs.Node) -> gs.Tensor | None:
    """The operand that adding 0 or multiplying by 1 forwards."""
    if "broadcast" in node.attrs:  # before opset 7, with a different alignment
        return None
    neutral = 0 if node.op in ("Add", "Sub") else 1
    pairs = [(0, 1)] if node.op in ("Sub", "Div", "Pow") else [(0, 1), (1, 0)]
    for keep, other in pairs:
        tensor, values = node.inputs[keep], constant_values(node.inputs[other])
        if values is None or is_constant(tensor) or values.dtype.kind in "OUSb":
            continue
        if np.all(values == neutral) and broadcasts_into(values.shape, tensor):
            return tensor
    return None


def _clip(node: gs.Node, opset: int) -> bool:
    limits = (
        (node.attrs.get("min"), node.attrs.get("max"))
        if opset < 11
        else tuple(None if t is None else constant_values(t) for t in (input_at(node, 1), input_at(node, 2)))
    )
    if opset >= 11 and any(limit is None and input_at(node, i) is not None for i, limit in enumerate(limits, start=1)):
        return False  # computed at run time
    if all(limit is None for limit in limits):
        return True
    dtype = node.inputs[0].dtype
    if dtype is None or isinstance(dtype, int) or np.dtype(dtype).kind != "f":
        return False
    info = np.finfo(np.dtype(dtype))
    low, high = limits
    return (low is None or float(np.max(low)) <= info.min) and (high is None or float(np.min(high)) >= info.max)


def _values(node: gs.Node, index: int, attribute: str) -> NDArray | None:
    """A parameter that is an attribute in older opsets: its values, empty if omitted, None if computed."""
    if attribute in node.attrs:
        return np.asarray(node.attrs[attribute])
    tensor = input_at(node, index)
    return np.asarray([]) if tensor is None else constant_values(tensor)


def _pad(node: gs.Node, opset: int) -> bool:
    pads = _values(node, 1, "pads")
    return pads is not None and not np.any(pads)


def _tile(node: gs.Node, opset: int) -> bool:
    repeats = constant_values(node.inputs[1]) if opset >= 6 and len(node.inputs) > 1 else None
    return repeats is not None and bool(np.all(repeats == 1))


def _upsample(node: gs.Node, opset: int) -> bool:
    scales = _values(node, 1, "scales")
    return scales is not None and scales.size > 0 and bool(np.all(scales == 1))


def _resize(node: gs.Node, opset: int) -> bool:
    if node.attrs.get("coordinate_transformation_mode") in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        return False
    if opset < 11:
        return _upsample(node, opset)
    scales = _values(node, 2, "")
    if scales is not None and scales.size:
        return bool(np.all(scales == 1))
    sizes, shape = _values(node, 3, ""), static_shape(node.inputs[0])
    if sizes is None or sizes.size == 0 or shape is None:
        return False
    axes = [a % len(shape) for a in node.attrs.get("axes", range(len(shape)))]
    return len(axes) == sizes.size and all(shape[a] == s for a, s in zip(axes, sizes.tolist(), strict=True))


def _pool(node: gs.Node, opset: int) -> bool:
    kernel = node.attrs.get("kernel_shape", [0])
    return all(k == 1 for k in (*kernel, *node.attrs.get("strides", []))) and not any(node.attrs.get("pads", []))


def _global_pool(node: gs.Node, opset: int) -> bool:
    shape = node.inputs[0].shape
    return shape is not None and len(shape) > 2 and all(d == 1 for d in shape[2:])


def _slice(node: gs.Node, opset: int) -> bool:
    starts, ends, axes, steps = (_values(node, i, a) for i, a in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "")))
    if starts is None or ends is None or axes is None or steps is None or node.inputs[0].shape is None:
        return False
    shape = list(node.inputs[0].shape)
    axes = axes if axes.size else np.arange(starts.size)
    for i, axis in enumerate(axes.tolist()):
        dim, end = shape[int(axis)], int(ends[i])
        covers = end >= UNBOUNDED or (isinstance(dim, int) and end >= dim)
        begins = starts[i] == 0 or (isinstance(dim, int) and starts[i] <= -dim)
        if not covers or not begins or (steps.size and steps[i] != 1):
            return False
    return True


def _expand(node: gs.Node, opset: int) -> bool:
    target = constant_values(node.inputs[1])
    return target is not None and broadcasts_into([int(d) for d in target], node.inputs[0])


def _reshape(node: gs.Node, opset: int) -> bool:
    if _same_static_shape(node):
        return True
    tensor = input_at(node, 1)
    target = None if tensor is None else constant_values(tensor)
    shape = node.inputs[0].shape
    if target is None or shape is None or len(shape) != target.size or 0 in shape:
        return False
    copies = not node.attrs.get("allowzero", 0)
    open_dims = [
        int(t)
        for t, d in zip(target.tolist(), shape, strict=True)
        if not ((t == 0 and copies) or (isinstance(d, int) and t == d))
    ]
    # If all other dimensions stay, so does the one that is inferred from the number of elements.
    return open_dims in ([], [-1])


def _flatten(node: gs.Node, opset: int) -> bool:
    return _same_static_shape(node) or (rank(node.inputs[0]) == 2 and node.attrs.get("axis", 1) in (1, -1))


def _squeeze(node: gs.Node, opset: int) -> bool:
    # Empty axes mean all dimensions of size 1, like missing axes.
    axes, shape = _values(node, 1, "axes"), static_shape(node.inputs[0])
    return axes is not None and axes.size == 0 and shape is not None and 1 not in shape


def _unsqueeze(node: gs.Node, opset: int) -> bool:
    axes = _values(node, 1, "axes")
    return axes is not None and axes.size == 0


def _transpose(node: gs.Node, opset: int) -> bool:
    shape = node.inputs[0].shape
    perm = node.attrs.get("perm") or (None if shape is None else list(range(len(shape)))[::-1])
    if perm is None:
        return False
    if list(perm) == sorted(perm):
        return True
    if shape is None:
        return False
    # Only dimensions of size 1 may move: memory and shape are then unchanged.
    moved = [p for p in perm if shape[p] != 1]
    return moved == sorted(moved) and [shape[p] for p in perm] == list(shape)


def _same_static_shape(node: gs.Node) -> bool:
    shape = static_shape(node.inputs[0])
    return shape is not None and shape == static_shape(node.outputs[0])


RULES: dict[str, Callable[[gs.Node, int], bool]] = {
    "AveragePool": _pool,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _one_input,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": _always,
    "Max": _one_input,
    "MaxPool": _pool,
    "Mean": _one_input,
    "Min": _one_input,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _one_output,
    "Squeeze": _squeeze,
    "Sum": _one_input,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _upsample,
}
