"""The output of an operator: how its exact results are rounded and stored.

Relus, Clips and products with a positive constant after an operator are folded into its rescale (lowering.downstream).
If one QuantizeLinear follows, or several that agree, the operator produces their codes. Otherwise the result stays
wide: an int32 tensor with its own scale, which every reader rescales.
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
# A wide result with its own scale uses at most this much of int32, so that a sum of two has a bit to spare.
WIDE_REACH = float(2**30)
# Its step is 2^-FINER of that of the downstream codes: rounding to it is negligible, and so is the error of a
# multiplier (2^-32 if the other term of a sum needs a shift of 31) times so few steps.
FINER = 14


@dataclass(frozen=True)
class Plan:
    """The planned output of an operator.

    quantize: the QuantizeLinear whose output is written, if it follows directly. scale, zero_point, type, axis, qmin,
    qmax: of the result. low, high: of its integers, tighter than [qmin, qmax] where known, int64 () or (channels,).
    raw: the result is the accumulator itself.
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
        """One step of the result in units of the operator's own results, before folded factors."""
        return np.asarray(self.scale / self.end.factor)

    def nodes(self) -> list[gs.Node]:
        """The nodes after the operator that are folded into it."""
        return [*self.end.chain, *([self.quantize] if self.quantize is not None else [])]

    def attributes(self) -> dict[str, int]:
        """The result attributes that every com.onnxq operator with a rescale has."""
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
    """The planned output of an operator whose exact results are scale · [low, high]; nothing is changed.

    result: its float output. scale: float64 () or (channels,) along its `axis`. may_be_raw: the integers themselves
    may be the result (accumulators). within: bounds to which the operator itself clips. reach: of a wide result.
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
    """The plan to produce codes, clipped to the bounds of the preceding activations."""
    codes = codes.clipped(end.low, end.high)
    quantize = direct_quantize(end.tensor, codes)
    return in_codes(codes, end, quantize)


def in_codes(codes: Codes, end: End | None = None, quantize: gs.Node | None = None) -> Plan:
    """The plan to produce codes and nothing else."""
    least, most = np.asarray(codes.qmin), np.asarray(codes.qmax)
    scale = np.asarray(codes.scale)
    return Plan(
        end or nothing_after(), quantize, scale, codes.zero_point, codes.type, codes.qmin, codes.qmax, None, least, most
    )


def free(low: float, high: float, end: End | None = None, reach: float = WIDE_REACH, step: float | None = None) -> Plan:
    """The plan to produce a wide value with its own scale, for reals in [low, high].

    reach: the largest integer. step: of the codes computed from it, if any.
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
    """Remove the nodes and those folded into them; returns the tensor that the new operator will write."""
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
    """The integers of the tensor produced as planned."""
    return Integers(target, made.scale, made.zero_point, made.axis, made.low, made.high)
