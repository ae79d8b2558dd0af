"""Relu and Clip: operators that saturate each element at constant bounds."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx_graphsurgeon as gs

from onnxq.graph.match import input_at, is_op, scalar_value


class Clamp(NamedTuple):
    """Bounds of a Relu or Clip; infinite where there is none."""

    low: float
    high: float

    @property
    def op(self) -> str:
        """The operator that has these bounds: Relu or Clip."""
        return "Relu" if self == (0.0, math.inf) else "Clip"


def clamp_of(node: gs.Node) -> Clamp | None:
    """The bounds of a Relu or Clip; None for other nodes, and where a bound is computed at run time or NaN."""
    if is_op(node, "Relu"):
        return Clamp(0.0, math.inf)
    if not is_op(node, "Clip"):
        return None
    found = []
    for index, attr, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
        tensor = input_at(node, index)
        value = float(node.attrs.get(attr, missing)) if tensor is None else scalar_value(tensor)
        if value is None or math.isnan(value):
            return None
        found.append(value)
    return Clamp(*found)
