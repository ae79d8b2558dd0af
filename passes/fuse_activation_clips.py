"""Drop a Relu or Clip that the saturation of the following QuantizeLinear does as well.

Q is monotonic, so only the codes of the bounds matter:
Case 1: Relu or Clip(a, b) → QuantizeLinear. Clip then Q equals Q alone for every input exactly when the bounds already
        map to the ends of the codes: Q(a) ≤ qmin and Q(b) ≥ qmax.
Case 2: Relu or Clip(a, b) → Clip(c, d) to a grid of fewer bits → QuantizeLinear: likewise when Q(a) ≤ Q(c) and
        Q(b) ≥ Q(d).
Case 3: Relu or Clip(a, b) → Clip(c, d) with a ≤ c and d ≤ b: the second does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph import marks
from onnxq.graph.clamps import Clamp, clamp_of
from onnxq.graph.match import (
    MatchFailure,
    constant_values,
    is_op,
    output_ids,
    producer,
    remove_nodes,
    replace_input,
    scalar_value,
    sole_consumer,
)
from onnxq.graph.qdq import is_grid_clip
from onnxq.graph.refusal import Refused
from onnxq.pipeline import Pass, PassResult
from onnxq.profiles.schema import load_profile


@dataclass(frozen=True)
class FuseActivationClips(Pass):
    """Drop a Relu or Clip where the following QuantizeLinear saturates alike, if the profile wants it.

    profile: name or path; empty takes the pipeline's; without any profile the pass applies.
    """

    name: ClassVar[str] = "fuse-activation-clips"
    preserves_values: ClassVar[bool] = True
    profile: str = ""

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """All cases, until nothing changes."""
        target = load_profile(self.profile) if self.profile else ctx.profile
        if target is not None and not target.graph.absorb_activations:
            return PassResult(notes=(f"profile {target.name} keeps activations as operators",))
        outputs = output_ids(graph)
        skipped: list[MatchFailure] = []
        dead: list[gs.Node] = []
        for node in graph.nodes:
            if not is_op(node, "QuantizeLinear", "Clip"):
                continue
            while (activation := _activation_before(node)) is not None:
                refused = _unfit(activation, node, outputs)
                if refused:
                    skipped.append(MatchFailure(refused.reason, activation.name))
                    break
                _remember(node, activation, outputs)
                replace_input(node, node.inputs[0], activation.inputs[0])
                activation.inputs.clear()  # so that what is upstream has one reader
                dead.append(activation)
        remove_nodes(graph, dead)
        gone = {node.name for node in dead}
        return PassResult(len(dead), tuple(s for s in skipped if s.node not in gone))


def _activation_before(node: gs.Node) -> gs.Node | None:
    found = producer(node.inputs[0]) if node.inputs else None  # a node taken already has none
    return found if found is not None and is_op(found, "Relu", "Clip") and not is_grid_clip(found) else None


def _unfit(activation: gs.Node, node: gs.Node, outputs: set[int]) -> Refused | None:
    """Why `node` cannot take over from the activation upstream; None if it can (the cases above)."""
    reader = sole_consumer(activation.outputs[0], outputs)
    if reader is None or reader is not node:
        return Refused("its output is read elsewhere too")
    limits = clamp_of(activation)
    if limits is None:
        return Refused("its bounds are computed at run time or NaN")
    own = None
    if node.op == "Clip":
        own = clamp_of(node)
        if own is None:
            return Refused("the bounds of the Clip after it are computed at run time or NaN")
        if own[0] >= limits[0] and own[1] <= limits[1]:
            return None
    quantize = _quantize_after(node, outputs)
    if quantize is None:
        return Refused("the Clip after it is wider")
    code = _coder(quantize)
    if code is None:
        return Refused("the QuantizeLinear after it is not per-tensor with constant 8-bit parameters")
    low, high = code(own) if own else code.ends
    found = code(limits)
    if not (found[0] <= low and found[1] >= high):
        return Refused("QuantizeLinear does not saturate at its bounds")
    return None


def _quantize_after(node: gs.Node, outputs: set[int]) -> gs.Node | None:
    """The QuantizeLinear that `node` is, or that reads the grid Clip that it is."""
    if node.op == "QuantizeLinear":
        return node
    if not is_grid_clip(node):
        return None
    reader = sole_consumer(node.outputs[0], outputs)
    return reader if reader is not None and is_op(reader, "QuantizeLinear") else None


@dataclass(frozen=True)
class _Coder:
    """QuantizeLinear of two bounds, without saturation. ends: the codes at which it does."""

    scale: np.float32
    zero_point: int
    ends: tuple[float, float]

    def __call__(self, limits: tuple[float, float]) -> tuple[float, float]:
        low, high = (x if math.isinf(x) else self._code(x) for x in limits)
        return low, high

    def _code(self, x: float) -> float:
        return float(np.rint(np.float32(x) / self.scale)) + self.zero_point


def _coder(quantize: gs.Node) -> _Coder | None:
    scale = scalar_value(quantize.inputs[1])
    zero_point = constant_values(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None or zero_point.size != 1 or zero_point.dtype not in (np.uint8, np.int8):
        return None
    codes = np.iinfo(zero_point.dtype)
    return _Coder(np.float32(scale), int(zero_point.reshape(-1)[0]), (codes.min, codes.max))


def _remember(node: gs.Node, activation: gs.Node, outputs: set[int]) -> None:
    """Note on the QuantizeLinear what its saturation (or that of its grid Clip) stands for; several become one."""
    quantize = _quantize_after(node, outputs)
    if quantize is None:
        return
    before = marks.ABSORBED.get(quantize) or Clamp(-math.inf, math.inf)
    limits = clamp_of(activation)
    assert limits is not None
    marks.ABSORBED.set(quantize, Clamp(max(before.low, limits.low), min(before.high, limits.high)))
