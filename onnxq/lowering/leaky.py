"""LeakyRelu and PRelu where a table cannot be used: on wide values, and with per-channel slopes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import input_at
from onnxq.graph.qdq import constant_reals
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import tables
from onnxq.lowering.arithmetic import by_channel, lower_pair, partial_sum
from onnxq.lowering.integers import EIGHT_BIT, Integers
from onnxq.lowering.ledger import Work
from onnxq.lowering.requantize import clamped


def lower_leaky(work: Work, node: gs.Node) -> None:
    """max(x, 0) + slope · min(x, 0): a table of codes, else the sum of both parts. Raises RefusedError."""
    value = work.values.get(node.inputs[0])
    slope, axis = _slope(node)
    if value is None or (value.type in EIGHT_BIT and value.axis is None and axis is None):
        tables.lower_function(work, node)
        return
    if axis is not None and value.axis is not None and axis != value.axis:
        raise RefusedError("its slopes and the scales of its input run along different axes")
    rank = len(node.outputs[0].shape)
    name = node.inputs[0].name
    above = clamped(work, value, name, [node], low=value.zero_point)
    below = clamped(work, value, name, [node], high=value.zero_point)
    falling = _times(below, np.maximum(slope, 0.0), axis)
    if np.any(slope < 0):
        above = partial_sum(work, node, above, _times(below, np.maximum(-slope, 0.0), axis), rank, "Sub")
    lower_pair(work, node, above, falling, rank)


def _times(value: Integers, slope: NDArray[np.float64], axis: int | None) -> Integers:
    return replace(value, scale=value.scale * slope, axis=axis if axis is not None else value.axis)


def _slope(node: gs.Node) -> tuple[NDArray[np.float64], int | None]:
    """The slope below 0, () or (channels,), and its axis."""
    tensor = input_at(node, 1)
    if tensor is None:
        return np.asarray(float(node.attrs.get("alpha", 0.01))), None
    values = constant_reals(tensor)
    shape = node.inputs[0].shape
    if values is None or values.size == 0 or not np.isfinite(values).all() or shape is None:
        raise RefusedError("its slope is empty, not finite, or computed at run time")
    found = by_channel(values.astype(np.float64), len(shape))
    if found is None:
        raise RefusedError("its slope varies along more than one axis")
    return found


HANDLERS = dict.fromkeys(("LeakyRelu", "PRelu"), lower_leaky)
