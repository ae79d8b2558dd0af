"""Add a residual to a layer's accumulator before its rounding instead of after it (HAWQ-V3, eq. 9).

Case 1: an Add is the only reader of the raw accumulator of a Conv or Gemm → ConvAdd, GemmAdd.
Case 2: both inputs of the Add are such accumulators → the later layer adds the other one's accumulator, int32.

The integers are unchanged: the Add's multipliers, shift and rounding become the layer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph import marks
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import MatchFailure, constant_values, is_op, producer, sole_consumer
from onnxq.graph.refusal import Refused
from onnxq.lowering.emitter import Emitter
from onnxq.lowering.integers import RANGES, TYPE_NUMBERS
from onnxq.lowering.nhwc import TO_FIRST, image, leave, new_image
from onnxq.operators import DOMAIN
from onnxq.pipeline import Pass, PassResult

LAYERS = ("Conv", "Gemm")
WIDE_LOW, WIDE_HIGH = RANGES["int32"]


@dataclass(frozen=True)
class Layer:
    """A layer whose raw accumulator is input `index` of an Add. through: the Transpose and Squeeze in between."""

    node: gs.Node
    through: tuple[gs.Node, ...]
    index: int

    @property
    def spatial(self) -> int:
        """Spatial axes of the Add's tensors; 0 for a Gemm."""
        return 0 if self.node.op == "Gemm" else 2 if len(self.through) == 1 else 1


@dataclass(frozen=True)
class FuseResidual(Pass):
    """Let a convolution or Gemm add the residual to its accumulator: Conv, Add → ConvAdd."""

    name: ClassVar[str] = "fuse-residual"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Both cases."""
        emitter = Emitter(graph)
        order = IdentityMap((n, i) for i, n in enumerate(graph.nodes))
        skipped: list[MatchFailure] = []
        for node in list(graph.nodes):
            if node.domain != DOMAIN or node.op != "Add":
                continue
            layers = [found for i in (0, 1) if (found := _layer(node, i, emitter.outputs)) is not None]
            layers.sort(key=lambda found: order[found.node], reverse=True)
            refusals = []
            for layer in layers:
                refused = _unfit(node, layer)
                if refused is None:
                    _fuse(emitter, node, layer)
                    break
                refusals.append(refused)
            else:
                skipped += [MatchFailure(refused.reason, node.name) for refused in dict.fromkeys(refusals)]
        emitter.finish()
        return PassResult(emitter.lowered, tuple(skipped))


def _layer(add: gs.Node, index: int, outputs: set[int]) -> Layer | None:
    """The layer whose accumulator is this input of the Add, if nothing else reads it."""
    tensor = add.inputs[index]
    through: list[gs.Node] = []
    node = producer(tensor)
    while node is not None and is_op(node, "Transpose", "Squeeze"):
        if sole_consumer(tensor, outputs) is None:
            return None
        through.insert(0, node)
        tensor, node = node.inputs[0], producer(node.inputs[0])
    if node is None or node.domain != DOMAIN or node.op not in LAYERS or sole_consumer(tensor, outputs) is None:
        return None
    plain = [] if node.op == "Gemm" else ["Transpose", "Squeeze"][: len(through)]
    if [n.op for n in through] != plain or (node.op == "Conv" and not through):
        return None
    if through and through[0].attrs.get("perm") != TO_FIRST:
        return None
    if add.inputs[0] is add.inputs[1] or not _is_raw(node):
        return None
    return Layer(node, tuple(through), index)


def _is_raw(node: gs.Node) -> bool:
    """Whether a layer's result is its raw accumulator."""
    multiplier, shift = constant_values(node.inputs[3]), constant_values(node.inputs[4])
    if multiplier is None or shift is None or node.attrs["y_type"] != TYPE_NUMBERS["int32"]:
        return False
    identity = multiplier.astype(np.int64) == np.left_shift(np.int64(1), shift.astype(np.int64))
    whole = (int(node.attrs["qmin"]), int(node.attrs["qmax"])) == (WIDE_LOW, WIDE_HIGH)
    return bool(identity.all()) and whole and int(node.attrs.get("y_zero_point", 0)) == 0


def _unfit(add: gs.Node, layer: Layer) -> Refused | None:
    """Why the Add cannot be fused into the layer; None if it can."""
    residual, result = add.inputs[1 - layer.index], add.outputs[0]
    if residual.shape is None or result.shape is None or any(d is None for d in (*residual.shape, *result.shape)):
        return Refused(f"the shape of {residual.name if residual.shape is None else result.name} is unknown")
    if list(residual.shape) != list(result.shape):
        return Refused(f"{residual.name} is broadcast")
    if any(constant_values(t) is None for t in add.inputs[2:5]):
        return Refused("its multipliers are computed at run time")
    rank = len(result.shape)
    channels = rank - 1 if layer.spatial == 0 else 1
    vectors = any(t.shape[0] > 1 for t in add.inputs[2:5])
    if vectors and int(add.attrs["axis"]) % rank != channels:
        return Refused("its multipliers are along a different axis from the layer's channels")
    return None


def _fuse(emitter: Emitter, add: gs.Node, layer: Layer) -> None:
    """Replace the Add with the layer and its residual; the result keeps the Add's name."""
    emitter.current = add
    node, index, result = layer.node, layer.index, add.outputs[0]
    own, other = add.inputs[2 + index], add.inputs[3 - index]
    residual, shift = add.inputs[1 - index], add.inputs[4]
    x, w, bias, _, _, w_zero_point = node.inputs
    attrs = {
        **node.attrs,
        "residual_zero_point": int(add.attrs["ba"[index] + "_zero_point"]),
        **{key: add.attrs[key] for key in ("y_zero_point", "qmin", "qmax", "y_type")},
    }
    sources = [*_names(node), *_names(add)]
    form = marks.RESCALE.get(add)
    op, spatial, name = f"{node.op}Add", layer.spatial, node.name
    placed = image(emitter, residual, spatial) if spatial else residual
    emitter.take(add, node, *layer.through)
    written = new_image(emitter, result, spatial) if spatial else result
    fused = emitter.own(
        op, [x, w, bias, own, shift, w_zero_point, placed, other], written, attrs, [name], result=result
    )
    marks.SOURCES.set(fused, tuple(dict.fromkeys(sources)))
    if form:
        marks.RESCALE.set(fused, form)
    if spatial:
        leave(emitter, written, result, spatial)


def _names(node: gs.Node) -> tuple[str, ...]:
    """The nodes of the QDQ model that a node comes from."""
    return marks.SOURCES.get(node) or (node.name,)
