"""What an operator makes of its exact results.

After an operator stand Relus, Clips and products with a positive constant, which go into its rescale
(lowering.downstream). Then comes one QuantizeLinear, or several that agree: the operator makes their codes. Or anything
else: the result is kept wide, an int32 tensor with a scale of its own, and every reader rescales it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.lowering.downstream import (
    End,
    direct_quantize,
    follow,
    next_step,
    nothing_after,
    reach_of,
    takes_channels,
    wanted,
)
from onnxq.lowering.integers import RANGES, TYPE_NUMBERS, Codes, Integers
from onnxq.lowering.ledger import Work

WIDE_LOW, WIDE_HIGH = RANGES["int32"]
# A wide result of its own scale uses at most this much of int32, so that a sum of two has a bit to spare.
WIDE_REACH = float(2**30)
# It has steps of 2^-FINER of those of the codes downstream: rounding to them does not count, and neither does the error
# of a multiplier (2^-32 where the other term of a sum needs a shift of 31) times so few of them.
FINER = 14


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
        """One step of the result in the operator's own results, before what follows multiplies them."""
        return np.asarray(self.scale / self.end.factor)

    def nodes(self) -> list[gs.Node]:
        """The nodes after the operator that its result takes in."""
        return [*self.end.chain, *([self.quantize] if self.quantize is not None else [])]

    def attributes(self) -> dict[str, int]:
        """The attributes of a result that every operator of com.onnxq with a rescale has."""
        return {
            "y_zero_point": self.zero_point,
            "qmin": self.qmin,
            "qmax": self.qmax,
            "y_type": TYPE_NUMBERS[self.type],
        }


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
    if may_be_raw and unbounded and (scale.ndim == 0 or takes_channels(work, end.tensor)):
        floor = WIDE_LOW if end.low < 0 else 0
        if scale.ndim == 0:
            low, high, axis = np.min(low), np.max(high), None
        least, most = (np.asarray(np.clip(v, floor, WIDE_HIGH)) for v in (low, high))
        return Plan(end, None, scale, 0, "int32", floor, WIDE_HIGH, axis, least, most, raw=True)
    limits = float(np.min(scale * low)), float(np.max(scale * high))
    return free(*limits, end, reach_of(end.tensor, reach), next_step(end.tensor))


def planned(end: End, codes: Codes) -> Plan:
    """The plan to make codes, clipped to the bounds of the activations before them."""
    codes = codes.clipped(end.low, end.high)
    quantize = direct_quantize(end.tensor, codes)
    return in_codes(codes, end, quantize)


def in_codes(codes: Codes, end: End | None = None, quantize: gs.Node | None = None) -> Plan:
    """The plan to make codes and nothing else."""
    least, most = np.asarray(codes.qmin), np.asarray(codes.qmax)
    scale = np.asarray(codes.scale)
    return Plan(
        end or nothing_after(), quantize, scale, codes.zero_point, codes.type, codes.qmin, codes.qmax, None, least, most
    )


def free(low: float, high: float, end: End | None = None, reach: float = WIDE_REACH, step: float | None = None) -> Plan:
    """The plan to make a wide value with a scale of its own, for reals in [low, high].

    reach: the largest integer. step: of the codes that are made of it, if there are such.
    """
    end = end or nothing_after()
    largest = max(abs(min(max(v, end.low), end.high)) for v in (low, high))
    own = largest / reach if largest > 0 else 1.0
    if step is not None:
        own = max(own, step * 2.0**-FINER)
    qmin = WIDE_LOW if end.low == -math.inf else _wide_code(end.low, own)
    qmax = WIDE_HIGH if end.high == math.inf else _wide_code(end.high, own)
    qmax = max(qmin, qmax)
    least, most = (np.asarray(min(max(v, qmin), qmax)) for v in (math.floor(low / own), math.ceil(high / own)))
    return Plan(end, None, np.asarray(own), 0, "int32", qmin, qmax, None, least, most)


def _wide_code(real: float, scale: float) -> int:
    return int(min(max(round(real / scale), WIDE_LOW), WIDE_HIGH))


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
