"""Drop a Relu or Clip that the saturation of the following QuantizeLinear does as well.

Case 1: Relu or Clip(a, b) → QuantizeLinear(scale, zp). Clip then Q equals Q alone for every input exactly when the
        bounds already map to the ends of the codes: Q(a) ≤ qmin and Q(b) ≥ qmax.
Case 2: Relu → Clip(a, b) with a ≥ 0: the Clip does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.match import (
    MatchFailure,
    constant_values,
    input_at,
    is_op,
    output_ids,
    producer,
    remove_nodes,
    replace_input,
    scalar_value,
    sole_consumer,
)
from onnxq.passes.insert_qdq import GRID_BITS
from onnxq.pipeline import Pass, PassResult
from onnxq.profile import load_profile

ABSORBED = "onnxq.absorbed"  # metadata of the QuantizeLinear or grid Clip, so that strip-qdq can bring the activation back


@dataclass(frozen=True)
class FuseActivationClips(Pass):
    """Drop a Relu or Clip where the following QuantizeLinear saturates alike, if the profile wants it.

    profile: name or path; empty takes the pipeline's; without any profile the pass applies.
    """

    name: ClassVar[str] = "fuse-activation-clips"
    preserves_values: ClassVar[bool] = True
    profile: str = ""

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Both cases, until nothing changes."""
        target = load_profile(self.profile) if self.profile else ctx.profile
        if target is not None and not target.graph.absorb_activations:
            return PassResult(notes=(f"profile {target.name} keeps activations as operators",))
        outputs = output_ids(graph)
        changed, skipped, dead = 0, [], []
        for node in graph.nodes:
            if is_op(node, "QuantizeLinear", "Clip"):
                activation = producer(node.inputs[0])
                while activation is not None and is_op(activation, "Relu", "Clip"):
                    reason = _why_not(activation, node, outputs)
                    if reason:
                        skipped.append(MatchFailure(reason, activation.name))
                        break
                    if node.op == "QuantizeLinear" or GRID_BITS in getattr(node, "metadata", {}):
                        _remember(node, activation)
                    dead.append(activation)
                    replace_input(node, node.inputs[0], activation.inputs[0])
                    changed += 1
                    activation = producer(node.inputs[0])
        remove_nodes(graph, dead)
        return PassResult(changed, tuple(skipped))


def bounds(node: gs.Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip; None when they are computed at run time."""
    if node.op == "Relu":
        return 0.0, math.inf
    found = []
    for index, attr, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
        tensor = input_at(node, index)
        value = float(node.attrs.get(attr, missing)) if tensor is None else scalar_value(tensor)
        if value is None:
            return None
        found.append(value)
    return found[0], found[1]


def _why_not(activation: gs.Node, node: gs.Node, outputs: set[int]) -> str:
    """Why `node` cannot take over from the activation before it; empty if it can."""
    if sole_consumer(activation.outputs[0], outputs) is not node:
        return "its output is read elsewhere too"
    limits = bounds(activation)
    if limits is None:
        return "its bounds are computed at run time"
    if node.op == "Clip":
        own = bounds(node)
        return "" if own is not None and own[0] >= limits[0] and own[1] <= limits[1] else "the Clip behind it is wider"
    scale = scalar_value(node.inputs[1])
    zero_point = constant_values(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None or zero_point.size != 1 or zero_point.dtype.itemsize != 1:
        return "the QuantizeLinear behind it is not per-tensor with constant 8-bit parameters"
    codes = np.iinfo(zero_point.dtype)
    low, high = (_code(limit, scale, int(zero_point.reshape(-1)[0])) for limit in limits)
    if low > codes.min or high < codes.max:
        return "QuantizeLinear does not saturate at its bounds"
    return ""


def _code(x: float, scale: float, zero_point: int) -> float:
    if math.isinf(x):
        return x
    return float(np.rint(np.float32(x) / np.float32(scale))) + zero_point


def _remember(node: gs.Node, activation: gs.Node) -> None:
    limits = bounds(activation)
    assert limits is not None
    text = "Relu" if activation.op == "Relu" else f"Clip {limits[0]!r} {limits[1]!r}"
    metadata = dict(getattr(node, "metadata", {}))
    metadata.setdefault(ABSORBED, text)
    node.metadata = metadata
