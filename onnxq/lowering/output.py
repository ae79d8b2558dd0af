"""Where the result of an operator goes.

Behind an operator stand Relus, Clips and products with a positive constant, which go into its rescale, and then:
one QuantizeLinear, or several that agree (its codes are what is made), possibly behind operators that only move values:
  the QuantizeLinear is monotonic and elementwise, so it may as well stand before them;
anything else: the result is kept wide, an int32 tensor with a scale of its own, and every reader rescales it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.axes import listed_axes
from onnxq.graph.clamps import clamp_of
from onnxq.graph.match import constant_values, consumers, is_op
from onnxq.graph.qdq import is_quantize
from onnxq.lowering.movers import moved_outputs
from onnxq.lowering.values import RANGES, TYPE_NUMBERS, Codes, Integers, codes_of
from onnxq.lowering.work import Work
from onnxq.numeric.integer_norm import LAYER_NORM_LIMIT

WIDE_LOW, WIDE_HIGH = RANGES["int32"]
# A wide result of its own scale uses at most this much of int32, so that a sum of two has a bit to spare.
WIDE_REACH = float(2**30)
# It has steps of 2^-FINER of those of the codes behind it: rounding to them does not count, and neither does the error
# of a multiplier (2^-32 where the other term of a sum needs a shift of 31) times so few of them.
FINER = 14
NEAR = 64  # nodes behind a tensor that are looked at for the next codes
# Readers that need one scale for the whole tensor; the others take one for each channel.
ONE_SCALE = (
    "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Mul", "Div", "Clip", "Reshape", "Flatten",
    "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
    "Resize", "MaxPool", "GlobalMaxPool", "Where", "Max", "Min", "LayerNormalization", "RMSNormalization",
)  # fmt: skip


@dataclass(frozen=True)
class End:
    """The last tensor of an operator and the activations behind it that belong to it.

    low, high: the bounds that those clip reals to. factor: what they multiply the result with, before that.
    """

    tensor: gs.Tensor
    chain: tuple[gs.Node, ...]
    low: float
    high: float
    factor: float


@dataclass(frozen=True)
class Plan:
    """What an operator is to make.

    quantize: the QuantizeLinear whose output is written, if there is one at once. scale, zero_point, type, axis, qmin,
    qmax: of the result. low, high: of its integers, closer than [qmin, qmax] where that is known, int64 () or
    (channels,). raw: it is the accumulator itself.
    """

    end: End
    quantize: gs.Node | None
    scale: NDArray[np.float64]
    zero_point: int
    type: str
    qmin: int
    qmax: int
    axis: int | None
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    raw: bool = False

    @property
    def unit(self) -> NDArray[np.float64]:
        """One step of the result in the operator's own results, before what is behind it multiplies them."""
        return np.asarray(self.scale / self.end.factor)

    def nodes(self) -> list[gs.Node]:
        """The nodes behind the operator that its result takes in."""
        return [*self.end.chain, *([self.quantize] if self.quantize is not None else [])]

    def attributes(self) -> dict[str, int]:
        """The attributes of a result that every operator of com.onnxq with a rescale has."""
        return {
            "y_zero_point": self.zero_point,
            "qmin": self.qmin,
            "qmax": self.qmax,
            "y_type": TYPE_NUMBERS[self.type],
        }


def constant_factor(node: gs.Node, tensor: gs.Tensor) -> float | None:
    """The positive number that a Mul or Div multiplies `tensor` with, if it does no more than that."""
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
    """From an operator's result through the activations that nothing else reads. within: bounds it has already."""
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
    """The codes that every reader of a float tensor wants, where they agree; None where it has to be wide."""
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
    """A QuantizeLinear that reads the tensor itself and makes these codes."""
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


def plan(
    work: Work,
    result: gs.Tensor,
    scale: NDArray[np.float64],
    axis: int | None,
    low: NDArray,
    high: NDArray,
    *,
    may_be_raw: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
    reach: float = WIDE_REACH,
) -> Plan:
    """What an operator whose exact results are scale · [low, high] is to make; nothing is changed.

    result: its float output. scale: float64 () or (channels,) along `axis` of that. may_be_raw: the integers themselves
    may be the result (accumulators). within: bounds that the operator itself clips to. reach: of a wide result.
    """
    end = follow(work, result, within)
    codes = wanted(work, end.tensor)
    if codes is not None:
        return planned(end, codes)
    scale = scale * end.factor
    unbounded = end.high == math.inf and end.low in (-math.inf, 0.0)
    if may_be_raw and unbounded and (scale.ndim == 0 or _takes_channels(work, end.tensor)):
        floor = WIDE_LOW if end.low < 0 else 0
        if scale.ndim == 0:
            low, high, axis = np.min(low), np.max(high), None
        least, most = (np.asarray(np.clip(v, floor, WIDE_HIGH)) for v in (low, high))
        return Plan(end, None, scale, 0, "int32", floor, WIDE_HIGH, axis, least, most, raw=True)
    limits = float(np.min(scale * low)), float(np.max(scale * high))
    return free(*limits, end, _reach(end.tensor, reach), next_step(end.tensor))


def planned(end: End, codes: Codes) -> Plan:
    """The plan to make codes, clipped to the bounds of the activations before them."""
    codes = codes.clipped(end.low, end.high)
    quantize = direct_quantize(end.tensor, codes)
    return in_codes(codes, end, quantize)


def in_codes(codes: Codes, end: End | None = None, quantize: gs.Node | None = None) -> Plan:
    """The plan to make codes and nothing else."""
    least, most = np.asarray(codes.qmin), np.asarray(codes.qmax)
    scale, nothing = np.asarray(codes.scale), End(gs.Variable.empty(), (), -math.inf, math.inf, 1.0)
    return Plan(
        end or nothing, quantize, scale, codes.zero_point, codes.type, codes.qmin, codes.qmax, None, least, most
    )


def free(low: float, high: float, end: End | None = None, reach: float = WIDE_REACH, step: float | None = None) -> Plan:
    """The plan to make a wide value with a scale of its own, for reals in [low, high].

    reach: the largest integer. step: of the codes that are made of it, if there are such.
    """
    end = end or End(gs.Variable.empty(), (), -math.inf, math.inf, 1.0)
    largest = max(abs(min(max(v, end.low), end.high)) for v in (low, high))
    own = largest / reach if largest > 0 else 1.0
    if step is not None:
        own = max(own, step * 2.0**-FINER)
    qmin = WIDE_LOW if end.low == -math.inf else _wide_code(end.low, own)
    qmax = WIDE_HIGH if end.high == math.inf else _wide_code(end.high, own)
    qmax = max(qmin, qmax)
    least, most = (np.asarray(min(max(v, qmin), qmax)) for v in (math.floor(low / own), math.ceil(high / own)))
    return Plan(end, None, np.asarray(own), 0, "int32", qmin, qmax, None, least, most)


def next_step(tensor: gs.Tensor) -> float | None:
    """The smallest scale of the QuantizeLinears next behind a tensor, whatever lies between; None without any near."""
    scales: list[float] = []
    seen: set[int] = set()
    waiting = [tensor]
    while waiting and len(seen) < NEAR:
        for node in consumers(waiting.pop(0)):
            if id(node) in seen:
                continue
            seen.add(id(node))
            codes = codes_of(node) if is_quantize(node) else None
            if codes is not None:
                scales.append(codes.scale)
            elif not is_quantize(node):
                waiting += node.outputs
    return min(scales, default=None)


def _reach(tensor: gs.Tensor, reach: float) -> float:
    """The largest integers that every reader of a wide tensor takes: sums must be int32, LayerNorm has 16 bits."""
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
            most = min(most, LAYER_NORM_LIMIT - 2.0)  # one to round to
        most = min(most, reach / math.prod(d for d in sizes if isinstance(d, int)))
    return most


def reduced_axes(node: gs.Node, rank: int) -> list[int] | None:
    """The axes that a reduction goes over, sorted and not negative; None where they are computed at run time."""
    listed: Iterable[int] | None = listed_axes(node)
    if listed is None:
        return None
    if not listed:
        listed = [] if int(node.attrs.get("noop_with_empty_axes", 0)) else range(rank)
    return sorted({int(a) % rank for a in listed})


def _wide_code(real: float, scale: float) -> int:
    return int(min(max(round(real / scale), WIDE_LOW), WIDE_HIGH))


def _takes_channels(work: Work, tensor: gs.Tensor) -> bool:
    """Whether every reader of a wide tensor takes a scale for each channel."""
    for node in consumers(tensor):
        if is_op(node, *ONE_SCALE):
            return False
        if is_op(node, "Sum") and len(node.inputs) > 2:
            return False
        if is_op(node, "Relu") and not _takes_channels(work, node.outputs[0]):
            return False
    return True


def settle(work: Work, made: Plan, nodes: list[gs.Node]) -> gs.Variable:
    """Take the nodes and what belongs to them out of the graph; the tensor that the new operator is to write."""
    end = made.end
    shape = end.tensor.shape
    if made.quantize is not None:
        target = made.quantize.outputs[0]
        target.dtype = np.dtype(made.type)
        if target.shape is None:
            target.shape = shape
    else:
        target = work.variable(f"{end.tensor.name}_{'wide' if made.type == 'int32' else 'codes'}", made.type, shape)
    work.define(end.tensor, integers(made, target))
    work.take(*nodes, *made.nodes())
    return target


def integers(made: Plan, target: gs.Tensor) -> Integers:
    """What the tensor that is made as planned stands for."""
    return Integers(target, made.scale, made.zero_point, made.axis, made.low, made.high)
