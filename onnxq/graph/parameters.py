"""What the parameters of nodes must fulfil, checked once, when a model is loaded: ranks, types, values, attributes.

Only what no runtime runs is refused, and only where it is certain: shapes of constants and of the model's inputs are
what they are, those of other tensors may be declared wrong and do no harm. Scales that are zero, negative or not
finite, and those that are not as many as the channels, are left to `check` and lowering, which say what they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import ModelError, printable
from onnxq.graph.identity import IdentitySet
from onnxq.graph.validity import CONTRIB, STANDARD
from onnxq.graph.walk import all_graphs
from onnxq.graph.windows import weight_problems, window_problems

VALUES_MAX = 4096  # elements of a parameter whose values are looked at: shapes and axes have a handful
ANY, LIST, LOOSE, PADS = (), (1,), (0, 1), (1, 2)  # ranks; PADS: onnxruntime also takes [[…]]
INTEGERS = "iu"  # kinds of numpy's types
NUMBERS = "iuf"
# Operator: its parameters by position, with the ranks and kinds of type that they may have ("" any).
PARAMETERS: dict[str, dict[int, tuple[tuple[int, ...], str]]] = {
    "Slice": dict.fromkeys((1, 2, 3, 4), (LIST, INTEGERS)),
    "Pad": {1: (PADS, INTEGERS), 3: (LOOSE, INTEGERS)},
    "Resize": {1: (LIST, ""), 2: (LIST, ""), 3: (LIST, INTEGERS)},
    "Clip": dict.fromkeys((1, 2), (LOOSE, "")),
    "Dropout": dict.fromkeys((1, 2), (LOOSE, "")),
    "Range": dict.fromkeys((0, 1, 2), (LOOSE, NUMBERS)),
    "OneHot": {1: (LOOSE, NUMBERS)},
    "Upsample": {1: (LIST, "")},
    "BatchNormalization": dict.fromkeys((1, 2, 3, 4), (LIST, "")),
    "InstanceNormalization": dict.fromkeys((1, 2), (LIST, "")),
    **{op: {1: (LIST, INTEGERS)} for op in ("Reshape", "Expand", "Split", "CenterCropPad")},
    **{op: {1: (LOOSE, INTEGERS)} for op in ("Tile", "Squeeze", "Unsqueeze", "TopK", "CumSum", "Trilu")},
    "ConstantOfShape": {0: (ANY, INTEGERS)},  # onnxruntime reads the elements, whatever the rank
}
REDUCED = {1: (LOOSE, INTEGERS)}  # ReduceMean and its like
# Operators by which an attribute axis counts in the first input.
AXIS = frozenset({
    "ArgMax", "ArgMin", "Compress", "Concat", "Gather", "GatherElements", "Hardmax", "LayerNormalization", "LogSoftmax",
    "LpNormalization", "Scatter", "ScatterElements", "Softmax", "Split", "SplitToSequence", "TopK", "Unique",
})  # fmt: skip
PRODUCTS = ("MatMul", "MatMulInteger")
RECURRENT = ("GRU", "LSTM", "RNN")


def check_parameters(graph: gs.Graph, where: str) -> None:
    """Raise ModelError, which names the node, for parameters that its operator cannot have. Weights are not read."""
    inputs = IdentitySet(graph.inputs)
    for g in all_graphs(graph):
        for node in g.nodes:
            problem = next(_problems(node, [_shape(t, inputs) for t in node.inputs]), None)
            if problem is not None:
                raise ModelError(f"{where}: node {printable(node.name)} ({printable(node.op)}): {problem}")


def _shape(tensor: gs.Tensor, inputs: IdentitySet[gs.Tensor]) -> list[Any] | None:
    """The tensor's shape where it is certain."""
    if (isinstance(tensor, gs.Constant) or tensor in inputs) and tensor.shape is not None:
        return list(tensor.shape)
    return None


def _problems(node: gs.Node, shapes: Sequence[list[Any] | None]) -> Iterator[str]:
    standard = (node.domain or "") in STANDARD
    if node.op in ("QuantizeLinear", "DequantizeLinear") and (standard or node.domain == CONTRIB):
        yield from _of_scales(node, shapes)
    if not standard:
        return
    slots = PARAMETERS.get(node.op) or (REDUCED if node.op.startswith("Reduce") else {})
    for index, (ranks, kinds) in slots.items():
        yield from _of_slot(node, index, ranks, kinds)
    yield from _of_values(node, shapes)
    yield from _of_axes(node, shapes)
    yield from _of_ranks(node, shapes)
    yield from window_problems(node, shapes)
    yield from weight_problems(node, shapes)


def _constant(node: gs.Node, index: int) -> gs.Constant | None:
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return tensor if isinstance(tensor, gs.Constant) else None


def _of_slot(node: gs.Node, index: int, ranks: tuple[int, ...], kinds: str) -> Iterator[str]:
    tensor = _constant(node, index)
    if tensor is None:
        return
    if ranks and len(tensor.shape) not in ranks:
        wanted = " or ".join(map(str, ranks))
        yield f"input {index} ({printable(tensor.name)}) has shape {list(tensor.shape)}; it must be of rank {wanted}"
    if kinds and not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype).kind not in kinds:
        wanted = "integers" if kinds == INTEGERS else "numbers"
        yield f"input {index} ({printable(tensor.name)}) is of type {np.dtype(tensor.dtype).name}; it must be {wanted}"


def _numbers(node: gs.Node, index: int) -> list[int] | None:
    """The values of a constant parameter, if there are few."""
    tensor = _constant(node, index)
    if tensor is None or math.prod(tensor.shape) > VALUES_MAX:
        return None
    values = tensor.values
    return None if values.dtype.kind not in INTEGERS else values.reshape(-1).tolist()


def _of_values(node: gs.Node, shapes: Sequence[list[Any] | None]) -> Iterator[str]:
    op = node.op
    if op == "Slice":
        yield from _of_slice(node)
    elif op in ("Expand", "Tile", "Split", "ConstantOfShape", "CenterCropPad"):
        values = _numbers(node, 0 if op == "ConstantOfShape" else 1)
        if values is not None and any(v < 0 for v in values):
            yield f"its lengths {values} must not be negative"
    elif op == "Reshape":
        values = _numbers(node, 1)
        if values is not None and (min(values, default=0) < -1 or values.count(-1) > 1):
            yield f"its shape {values} must have at most one -1, and no other negative length"
    elif op == "Pad" and (pads := _numbers(node, 1)) is not None:
        axes, data = _numbers(node, 3), shapes[0] if shapes else None
        padded = len(axes) if axes is not None else len(data) if data is not None else None
        if axes is None and len(node.inputs) > 3 and not node.inputs[3].is_empty():  # computed at run time
            padded = None
        if len(pads) % 2 or (padded is not None and len(pads) != 2 * padded):
            yield f"it has {len(pads)} pads; two are needed for each axis{'' if padded is None else f' of {padded}'}"


def _of_slice(node: gs.Node) -> Iterator[str]:
    lists = {what: _numbers(node, i) for i, what in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))}
    lists = {what: node.attrs.get(what) if values is None else values for what, values in lists.items()}
    known = {what: values for what, values in lists.items() if values is not None}
    if len({len(values) for values in known.values()}) > 1:
        yield f"{', '.join(f'{len(v)} {what}' for what, v in known.items())}: there must be as many of each"
    if 0 in (known.get("steps") or ()):
        yield f"its steps {known['steps']} must not be 0"


def _of_axes(node: gs.Node, shapes: Sequence[list[Any] | None]) -> Iterator[str]:
    data = shapes[0] if shapes else None
    perm = node.attrs.get("perm") if node.op == "Transpose" else None
    if perm and sorted(perm) != list(range(len(perm if data is None else data))):
        count = "" if data is None else f" {len(data)}"
        yield f"its perm {list(perm)} must name each of the{count} axes once"
    if not data:  # of scalars, runtimes are generous
        return
    rank = len(data)
    axis = node.attrs.get("axis")
    if node.op in AXIS and isinstance(axis, int) and not -rank <= axis < rank:
        yield f"its axis {axis} is none of the {rank} axes of its input"
    if node.op == "Flatten" and isinstance(axis, int) and not -rank <= axis <= rank:
        yield f"its axis {axis} is none of the {rank} axes of its input"
    listed: Any = None
    if node.op in ("Slice", "Pad", "Squeeze") or node.op.startswith("Reduce"):
        listed = _numbers(node, 3 if node.op in ("Slice", "Pad") else 1)
        listed = node.attrs.get("axes") if listed is None else listed
    if listed and any(not -rank <= a < rank for a in listed):
        yield f"its axes {list(listed)} are not all of the {rank} axes of its input"


def _of_ranks(node: gs.Node, shapes: Sequence[list[Any] | None]) -> Iterator[str]:
    wanted = (2, 2) if node.op == "Gemm" else (3, 3, 3) if node.op in RECURRENT else ()
    for index, (shape, rank) in enumerate(zip(shapes, wanted, strict=False)):
        if shape is not None and len(shape) != rank:
            yield f"input {index} has shape {shape}; it must be of rank {rank}"
    if node.op in PRODUCTS and any(shape is not None and not shape for shape in shapes[:2]):
        yield "its operands must not be scalars"


def _of_scales(node: gs.Node, shapes: Sequence[list[Any] | None]) -> Iterator[str]:
    scale = _constant(node, 1)
    if scale is None:
        return
    if not isinstance(scale.dtype, int) and np.dtype(scale.dtype).kind in "iub":
        yield f"its scale is of type {np.dtype(scale.dtype).name}; it must be a floating-point type"
    size, data = math.prod(scale.shape), shapes[0]
    zero = _constant(node, 2)
    if zero is not None and list(zero.shape) != list(scale.shape) and (size != 1 or math.prod(zero.shape) != 1):
        yield f"its zero point has shape {list(zero.shape)}, its scale {list(scale.shape)}; they must be equal"
    if size == 1 or int(node.attrs.get("block_size", 0)):
        return
    if len(scale.shape) != 1:
        yield f"its scale has shape {list(scale.shape)}; it must be one number or one for each channel"
    axis = int(node.attrs.get("axis", 1))
    if data is not None and not -len(data) <= axis < len(data):
        yield f"its axis {axis} is none of the {len(data)} axes of its input"
