"""Moving Transposes through operators of the standard domain: elementwise operators, and those that pick, place and
repeat values. Float sums are excluded: they round differently in another order.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import Names, constant_values, input_at, is_op, producer, remove_nodes
from onnxq.graph.movement import breaks_before_movement
from onnxq.graph.refusal import RefusedError
from onnxq.layout.flip import (
    Flip,
    Given,
    Rule,
    alike,
    broadcast,
    integers,
    ints,
    known_rank,
    moved_axes,
    one_input,
)
from onnxq.layout.perms import Perm, inverse, or_none, permuted, without
from onnxq.layout.reshape import flatten, reshape, squeeze, unsqueeze

UNARY = (
    "Abs", "BitwiseNot", "Cast", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
ELEMENTWISE = (
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
CHANNELS_FIRST_TO_LAST: Perm = (0, 2, 3, 1)


def _unary(node: gs.Node, given: Given) -> Flip:
    return alike(node, one_input(node, given))


def _elementwise(node: gs.Node, given: Given) -> Flip:
    return broadcast(node, given, range(len(node.inputs)))


def _quantization(node: gs.Node, given: Given) -> Flip:
    """Rule of QuantizeLinear and DequantizeLinear."""
    perm = one_input(node, given)
    if node.attrs.get("block_size", 0):
        raise RefusedError("its scales are per block")
    if known_rank(node.inputs[1]) == 0:
        return alike(node, perm)
    return alike(node, perm, attrs={"axis": moved_axes([int(node.attrs.get("axis", 1))], perm)[0]})


def _concat(node: gs.Node, given: Given) -> Flip:
    if any(known_rank(t) != len(given.perm) for t in node.inputs):
        raise RefusedError("the ranks of its inputs differ")
    flip = broadcast(node, Given(given.perm, 0, True), range(len(node.inputs)))
    axis = moved_axes([int(node.attrs["axis"])], given.perm)[0]
    return Flip(flip.inputs, flip.outputs, {"axis": axis}, flip.constants)


def _split(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    return alike(node, perm, attrs={"axis": moved_axes([int(node.attrs.get("axis", 0))], perm)[0]})


def _slice(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    parameters = [t for t in node.inputs[1:] if not t.is_empty()]  # all four are of one type
    kind = next((t.dtype for t in parameters if t.dtype is not None), np.int64)
    return alike(node, perm, constants={3: _axes_of(node, 3, node.inputs[1], perm).astype(kind)})


def _axes_of(node: gs.Node, index: int, parameter: gs.Tensor, perm: Perm) -> NDArray[np.int64]:
    """The optional input axes: the dimension to which each entry of `parameter` belongs."""
    axes = integers(node, index, "axes")
    if axes is None:
        count = parameter.shape[0] if parameter.shape else None
        if not isinstance(count, int):
            raise RefusedError("the number of its parameters is unknown")
        axes = list(range(count))
    return ints(moved_axes(axes, perm))


def _pad(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    pads = constant_values(node.inputs[1])
    if input_at(node, 3) is None and pads is not None:
        begin, end = np.split(pads, 2)
        return alike(node, perm, constants={1: np.concatenate([begin[list(perm)], end[list(perm)]])})
    axes = integers(node, 3, "axes")
    return alike(node, perm, constants={3: ints(moved_axes(range(len(perm)) if axes is None else axes, perm))})


def _per_dimension(node: gs.Node, given: Given) -> Flip:
    """Tile, Expand: a parameter with one entry per dimension of the result."""
    perm = one_input(node, given)
    values = integers(node, 1, "sizes")
    if values is None or known_rank(node.inputs[0]) != len(perm) or len(values) > len(perm):
        raise RefusedError("its operand has fewer dimensions than its result")
    return alike(node, perm, constants={1: ints(permuted([*[1] * (len(perm) - len(values)), *values], perm))})


def _gather(node: gs.Node, given: Given) -> Flip:
    dims = known_rank(node.inputs[1])
    if dims > 1 or (dims == 0 and given.output):
        raise RefusedError("it changes the number of dimensions")
    perm = one_input(node, given)
    axis = int(node.attrs.get("axis", 0)) % len(perm)
    outer = perm if dims else or_none(without(perm, {axis}))
    return Flip((perm, None), (outer,), {"axis": moved_axes([axis], perm)[0]})


def _extremum(node: gs.Node, given: Given) -> Flip:
    """ReduceMax, ReduceMin, and integer sums."""
    dtype = node.inputs[0].dtype
    exact = node.op in ("ReduceMax", "ReduceMin") or (dtype is not None and np.dtype(dtype).kind in "iu")
    if not exact:
        raise RefusedError("it sums floats, which round differently in another order")
    dims = known_rank(node.inputs[0])
    axes = integers(node, 1, "axes")
    if not axes:
        if node.attrs.get("noop_with_empty_axes", 0):
            return _unary(node, given)
        axes = list(range(dims))
    keep = bool(node.attrs.get("keepdims", 1))
    perm = _reduced(node, given, keep)
    gone = {a % dims for a in axes}
    outer = perm if keep else or_none(without(perm, gone))
    constants = {1: ints(sorted(moved_axes(sorted(gone), perm)))} if input_at(node, 1) is not None else {}
    return Flip((perm, *[None] * (len(node.inputs) - 1)), (outer,), constants=constants)


def _reduced(node: gs.Node, given: Given, keep: bool) -> Perm:
    if given.output and not keep:
        raise RefusedError("it removes dimensions")
    return one_input(node, given)


def _arg(node: gs.Node, given: Given) -> Flip:
    keep = bool(node.attrs.get("keepdims", 1))
    perm = _reduced(node, given, keep)
    axis = int(node.attrs.get("axis", 0)) % len(perm)
    outer = perm if keep else or_none(without(perm, {axis}))
    return Flip((perm,), (outer,), {"axis": moved_axes([axis], perm)[0]})


def _resize(node: gs.Node, given: Given) -> Flip:
    perm = one_input(node, given)
    if node.attrs.get("mode", "nearest") != "nearest":
        raise RefusedError("it computes with floats")
    if input_at(node, 1) is not None and int(np.prod(node.inputs[1].shape or (1,))) > 0:
        raise RefusedError("it has a region of interest")
    if "axes" in node.attrs:
        return alike(node, perm, attrs={"axes": moved_axes(node.attrs["axes"], perm)})
    changes = {}
    for index in (2, 3):
        tensor = input_at(node, index)
        values = None if tensor is None else constant_values(tensor)
        if tensor is not None and values is None:
            raise RefusedError("its scales are computed at run time")
        if values is not None and values.size:
            changes[index] = values[list(perm)]
    return alike(node, perm, constants=changes)


def _shape(node: gs.Node, given: Given) -> Flip:
    """The shape of the transposed tensor, permuted back by a Gather."""
    perm = one_input(node, given)
    return Flip((perm,), (None,), replace=lambda g, n, names: _ordered_shape(g, n, perm, names))


def _ordered_shape(graph: gs.Graph, node: gs.Node, perm: Perm, names: Names) -> None:
    start, end = node.attrs.pop("start", None), node.attrs.pop("end", None)
    wanted = inverse(perm)[start:end]
    result = node.outputs[0]
    whole = gs.Variable(names.fresh(f"{result.name}_transposed"), np.int64, [len(perm)])
    order = gs.Constant(names.fresh(f"{result.name}_order"), ints(wanted))
    node.outputs[0] = whole
    graph.nodes.append(gs.Node("Gather", names.fresh(f"{node.name}_order"), {"axis": 0}, [whole, order], [result]))


def _size(node: gs.Node, given: Given) -> Flip:
    return Flip((one_input(node, given),), (None,))


def _depth_to_space(node: gs.Node, given: Given) -> Flip:
    """No channels-last operator exists: Reshape to [N, H, W, b, b, C], Transpose, Reshape; moves as many bytes."""
    return _blocks(node, given, to_space=True)


def _space_to_depth(node: gs.Node, given: Given) -> Flip:
    return _blocks(node, given, to_space=False)


def _blocks(node: gs.Node, given: Given, to_space: bool) -> Flip:
    perm = one_input(node, given)
    if perm != CHANNELS_FIRST_TO_LAST:
        raise RefusedError("it takes channels from dimension 1")
    if _breaks(node):
        raise RefusedError("onnxruntime rejects a Reshape after the upstream DequantizeLinear")
    shape = node.inputs[0].shape or ()
    known = [isinstance(d, int) for d in shape]
    if len(known) != 4 or not known[1] or not any(known[2:]):
        raise RefusedError("its shape is unknown")
    return alike(node, perm, replace=lambda g, n, names: _through_six_dimensions(g, n, to_space, names))


def _breaks(node: gs.Node) -> bool:
    maker = producer(node.inputs[0])
    while maker is not None and is_op(maker, "Transpose"):
        maker = producer(maker.inputs[0])
    return breaks_before_movement(maker)


def _through_six_dimensions(graph: gs.Graph, node: gs.Node, to_space: bool, names: Names) -> None:
    """The node already reads and writes channels-last tensors; only the computation between them remains."""
    source, result, block = node.inputs[0], node.outputs[0], int(node.attrs["blocksize"])
    height, width, channels = source.shape[1:]
    if to_space:
        depth = channels // block**2
        rows_last = node.attrs.get("mode", "DCR") == "DCR"
        split = [0, 0, 0, block, block, depth] if rows_last else [0, 0, 0, depth, block, block]
        order = (0, 1, 3, 2, 4, 5) if rows_last else (0, 1, 4, 2, 5, 3)
        joined = [0, *(d * block if isinstance(d, int) else -1 for d in (height, width)), depth]
    else:
        high, wide = (d // block if isinstance(d, int) else -1 for d in (height, width))
        split, order = [0, high, block, wide, block, channels], (0, 1, 3, 2, 4, 5)
        joined = [0, 0, 0, channels * block**2]
    dims = [source.shape[i] if d == 0 else (d if d > 0 else None) for i, d in enumerate(split)]
    parts = gs.Variable(names.fresh(f"{result.name}_blocks"), source.dtype, dims)
    moved = gs.Variable(names.fresh(f"{result.name}_moved"), source.dtype, permuted(dims, order))
    metadata = dict(getattr(node, "metadata", {}))
    remove_nodes(graph, [node])
    last = gs.Node(
        "Reshape", node.name, {}, [moved, gs.Constant(names.fresh(f"{node.name}_joined"), ints(joined))], [result]
    )
    last.metadata = metadata
    graph.nodes += [
        gs.Node(
            "Reshape",
            names.fresh(f"{node.name}_split"),
            {},
            [source, gs.Constant(names.fresh(f"{node.name}_parts"), ints(split))],
            [parts],
        ),
        gs.Node("Transpose", names.fresh(f"{node.name}_move"), {"perm": list(order)}, [parts], [moved]),
        last,
    ]


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantization),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"), _extremum),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("Expand", "Tile"), _per_dimension),
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Flatten": flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
}
