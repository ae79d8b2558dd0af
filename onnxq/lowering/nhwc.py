"""Conversion to channels-last and back for operators that need it: [N, C, H, W] or [N, C, L] ↔ [N, H, W, C]."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.lowering.emitter import Emitter

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
HEIGHT = 2  # the axis that is added to a 1-D tensor [N, C, L]: [N, C, 1, L]


def image(work: Emitter, tensor: gs.Tensor, spatial: int) -> gs.Tensor:
    """The tensor channels-last, with H = 1 if it has one spatial axis. Created once for all its readers."""
    found = work.images.get(tensor)
    if found is None:
        shape, kind = _shape(tensor, spatial), np.dtype(tensor.dtype).name
        first = tensor
        if spatial == 1:
            first = work.variable(f"{tensor.name}_2d", kind, shape)
            axes = work.constant(f"{tensor.name}_2d_axes", np.array([HEIGHT], np.int64))
            work.node("Unsqueeze", [tensor, axes], [first])
        found = work.variable(f"{tensor.name}_nhwc", kind, _permuted(shape))
        work.node("Transpose", [first], [found], {"perm": list(TO_LAST)})
        work.images[tensor] = found
    return found


def new_image(work: Emitter, tensor: gs.Tensor, spatial: int) -> gs.Variable:
    """A new channels-last tensor that `leave` will convert into this one."""
    return work.variable(f"{tensor.name}_nhwc", np.dtype(tensor.dtype).name, _permuted(_shape(tensor, spatial)))


def leave(work: Emitter, picture: gs.Tensor, tensor: gs.Tensor, spatial: int) -> None:
    """Produce the tensor from its channels-last copy."""
    if spatial == 2:
        work.node("Transpose", [picture], [tensor], {"perm": list(TO_FIRST)})
        return
    first = work.variable(f"{tensor.name}_2d", np.dtype(tensor.dtype).name, _shape(tensor, spatial))
    work.node("Transpose", [picture], [first], {"perm": list(TO_FIRST)})
    axes = work.constant(f"{tensor.name}_2d_axes", np.array([HEIGHT], np.int64))
    work.node("Squeeze", [first, axes], [tensor])


def _shape(tensor: gs.Tensor, spatial: int) -> list | None:
    if tensor.shape is None:
        return None
    shape = list(tensor.shape)
    return shape if spatial == 2 else [*shape[:HEIGHT], 1, *shape[HEIGHT:]]


def _permuted(shape: list | None) -> list | None:
    return None if shape is None else [shape[i] for i in TO_LAST]
