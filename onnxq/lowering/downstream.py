"""What follows an operator, up to the next QuantizeLinear: what clips its result, and which codes readers expect.

Relus, Clips and products with a positive constant are folded into the operator's rescale. A QuantizeLinear is monotonic
and elementwise, so operators that only move values may come between the operator and it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.graph.axes import reduced_axes
from onnxq.graph.clamps import clamp_of
from onnxq.graph.identity import IdentitySet
from onnxq.graph.match import constant_values, consumers, is_op
from onnxq.graph.qdq import is_quantize
from onnxq.lowering.integers import Codes, codes_of
from onnxq.lowering.ledger import Work
from onnxq.lowering.movers import moved_outputs
from onnxq.numeric.integer_norm import LAYER_NORM_LIMIT

NEAR = 64  # nodes after a tensor that are searched for the next codes
# Readers that need a per-tensor scale; the others accept one per channel.
ONE_SCALE = (
    "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Mul", "Div", "Clip", "Reshape", "Flatten",
    "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
    "Resize", "MaxPool", "GlobalMaxPool", "Where", "Max", "Min", "LayerNormalization", "RMSNormalization",
)  # fmt: skip


@dataclass(frozen=True)
class End:
    """The final tensor of an operator and the following activations that are folded into it.

    low, high: the bounds to which those clip reals. factor: by which they first multiply the result.
    """

    tensor: gs.Tensor
    chain: tuple[gs.Node, ...]
    low: float
    high: float
    factor: float


def nothing_after() -> End:
    """The end of an operator with no folded activation."""
    return End(gs.Variable.empty(), (), -math.inf, math.inf, 1.0)


def constant_factor(node: gs.Node, tensor: gs.Tensor) -> float | None:
    """The positive number by which a Mul or Div multiplies `tensor`, if that is all it does."""
    if not is_op(node, "Mul", "Div") or len(node.inputs) != 2 or node.inputs[0] is node.inputs[1]:
        return None
    index = next((i for i, t in enumerate(node.inputs) if t is tensor), None)
    if index is None or (node.op == "Div" and index != 0):
        return None
    other = node.inputs[1 - index]
    values = constant_values(other)
    if values is None or values.size != 1 or len(other.shape) > len(tensor.shape or ()):
        return None
    value = float(values.reshape(-1)[0])
    if not (math.isfinite(value) and value > 0):
        return None
    return 1.0 / value if node.op == "Div" else value


def follow(work: Work, tensor: gs.Tensor, within: tuple[float, float] = (-math.inf, math.inf)) -> End:
    """From an operator's result through the activations with no other reader. within: bounds already applied."""
    low, high, factor = *within, 1.0
    low = min(low, high)  # where low > high, ONNX's Clip gives high
    chain: list[gs.Node] = []
    while (node := work.sole_reader(tensor)) is not None and any(t is tensor for t in node.inputs):
        bounds = clamp_of(node) if node.inputs[0] is tensor else None
        step = constant_factor(node, tensor)
        if bounds is not None:
            floor = min(bounds)
            low, high = min(max(low, floor), bounds[1]), min(max(high, floor), bounds[1])
        elif step is not None:
            low, high, factor = low * step, high * step, factor * step
        else:
            break
        chain.append(node)
        tensor = node.outputs[0]
    return End(tensor, tuple(chain), low, high, factor)


def wanted(work: Work, tensor: gs.Tensor) -> Codes | None:
    """The codes that every reader of a float tensor expects, if they agree; None if it must be wide."""
    found = _asked(work, tensor)
    if not found or None in found:
        return None
    first = found[0]
    return first if all(f == first for f in found) else None


def _asked(work: Work, tensor: gs.Tensor) -> list[Codes | None]:
    found: list[Codes | None] = [None] if id(tensor) in work.outputs else []
    for node in consumers(tensor):
        if not work.at_top(node):
            found.append(None)
            continue
        if is_quantize(node) and node.inputs[0] is tensor:
            found.append(codes_of(node))
            continue
        bounds = clamp_of(node) if node.inputs and node.inputs[0] is tensor else None
        if bounds is not None:
            codes = wanted(work, node.outputs[0])
            found.append(None if codes is None else codes.clipped(*bounds))
            continue
        moved = moved_outputs(node, tensor)
        if moved is None:
            found.append(None)
        else:
            found += [c for t in moved for c in (_asked(work, t) or [None])]
    return found


def direct_quantize(tensor: gs.Tensor, codes: Codes) -> gs.Node | None:
    """A QuantizeLinear that reads the tensor directly and produces these codes."""
    for node in consumers(tensor):
        if is_quantize(node) and node.inputs[0] is tensor:
            found = codes_of(node)
            if found is not None and (found.scale, found.zero_point, found.type) == (
                codes.scale,
                codes.zero_point,
                codes.type,
            ):
                return node
    return None


def next_step(tensor: gs.Tensor) -> float | None:
    """The smallest scale of the nearest downstream QuantizeLinears; None if none is near."""
    scales: list[float] = []
    seen: IdentitySet[gs.Node] = IdentitySet()
    waiting = [tensor]
    while waiting and len(seen) < NEAR:
        for node in consumers(waiting.pop(0)):
            if node in seen:
                continue
            seen.add(node)
            codes = codes_of(node) if is_quantize(node) else None
            if codes is not None:
                scales.append(codes.scale)
            elif not is_quantize(node):
                waiting += node.outputs
    return min(scales, default=None)


def reach_of(tensor: gs.Tensor, reach: float) -> float:
    """The largest integers that every reader of a wide tensor accepts: sums must fit int32, LayerNorm has 16 bits."""
    most = reach
    for node in consumers(tensor):
        sizes: list = []
        if is_op(node, "AveragePool"):
            sizes = node.attrs["kernel_shape"]
        elif is_op(node, "GlobalAveragePool") and tensor.shape is not None:
            sizes = tensor.shape[2:]
        elif is_op(node, "ReduceMean", "ReduceSum") and tensor.shape is not None:
            axes = reduced_axes(node, len(tensor.shape))
            sizes = [tensor.shape[i] for i in axes or ()]
        elif is_op(node, "LayerNormalization", "RMSNormalization"):
            most = min(most, LAYER_NORM_LIMIT - 2.0)  # leaves one for rounding
        most = min(most, reach / math.prod(d for d in sizes if isinstance(d, int)))
    return most


def takes_channels(work: Work, tensor: gs.Tensor) -> bool:
    """Whether every reader of a wide tensor accepts per-channel scales."""
    for node in consumers(tensor):
        if is_op(node, *ONE_SCALE):
            return False
        if is_op(node, "Sum") and len(node.inputs) > 2:
            return False
        if is_op(node, "Relu") and not takes_channels(work, node.outputs[0]):
            return False
    return True
