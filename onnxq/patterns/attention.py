"""Scores, masks and positions: tensors around a Softmax that need other treatment at 8 bits than activations.

Attention adds masks of −10000, the lowest float or −infinity to its scores. One scale for both would round the scores
to nothing. It also computes masks and positions from integers, where an error of half a step is a different position.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import ONLY_SHAPE, STANDARD_DOMAINS, constant_values, consumers, is_constant, is_float, is_op
from onnxq.profiles.schema import Profile

SOFTMAX = ("Softmax", "LogSoftmax")
# What attention does to scores and masks before the Softmax.
_MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Identity", "Slice", "Flatten", "Tile")
_SCORE_OPS = ("Add", "Sub", "Mul", "Div", "Neg", "Where", "Max", "Min", "Clip", "Cast", "DequantizeLinear", *_MOVES)
# Integers of these types are counts or indices; 8-bit integers are data (pixels).
_INDEX_TYPES = ("int64", "int32", "bool")


def feeds_softmax(graph: gs.Graph) -> set[int]:
    """ids of the nodes whose results reach only Softmax nodes, through elementwise operators and data movement.

    The graph is topologically sorted. Matrix products end the search (their operands are data again); Q/DQ do not.
    """
    found: set[int] = set()
    outputs = {id(t) for t in graph.outputs}
    for node in reversed(graph.nodes):
        step = is_op(node, "QuantizeLinear") or (is_op(node, *_SCORE_OPS) and is_float(node.outputs[0]))
        if not step or any(id(t) in outputs for t in node.outputs):
            continue
        readers = [c for t in node.outputs for c in consumers(t)]
        if readers and all(id(c) in found or is_op(c, *SOFTMAX) for c in readers):
            found.add(id(node))
    return found


def float_softmax(profile: Profile) -> bool:
    """Whether the target computes Softmax in float."""
    return all(profile.rule(op).action == "float" for op in SOFTMAX)


def masked_tensors(graph: gs.Graph) -> set[str]:
    """Names of the float tensors that may contain masks, −infinity included: all that feed only Softmax nodes."""
    nodes = feeds_softmax(graph)
    readers = [n for n in graph.nodes if id(n) in nodes or is_op(n, *SOFTMAX)]
    return {t.name for n in readers for t in n.inputs if is_float(t) and not is_constant(t)}


def from_integers(graph: gs.Graph) -> set[int]:
    """ids of the nodes that compute float masks and positions from integers, shapes and constants alone.

    A matrix product is included if it multiplies only scalars (rows of length 1, as in rotary embeddings) or depends
    on the model's inputs only through their shapes; otherwise it is a layer that reads integers.
    """
    counted: set[int] = set()  # tensors
    fixed: set[int] = set()  # tensors that depend on the inputs through their shapes alone
    found: set[int] = set()
    for node in graph.nodes:
        data = [t for t in node.inputs if not t.is_empty() and not is_constant(t)]
        if node.op in ONLY_SHAPE or all(id(t) in fixed for t in data):
            fixed |= {id(t) for t in node.outputs}
        result = node.outputs[0] if node.outputs else None
        if result is None or not is_float(result) or node.domain not in STANDARD_DOMAINS:
            continue
        floats = [t for t in data if is_float(t)]
        if not floats and not _reads_integers(node):
            continue
        if any(id(t) not in counted for t in floats):
            continue
        if node.op in LINEAR_OPS and not (id(result) in fixed or _outer(node)):
            continue
        counted.add(id(result))
        found.add(id(node))
    return found


def _reads_integers(node: gs.Node) -> bool:
    """Whether a node without float operands converts counts or indices to float."""
    if is_op(node, "Cast"):
        kind = node.inputs[0].dtype
        return kind is not None and str(getattr(kind, "name", kind)) in _INDEX_TYPES
    return is_op(node, "Range", "ConstantOfShape", "Where")


def _outer(node: gs.Node) -> bool:
    """Whether the rows of a matrix product have length 1."""
    if node.op != "MatMul":
        return False
    left, right = (constant_values(t) for t in node.inputs[:2])
    return (left is not None and left.ndim > 1 and left.shape[-1] == 1) or (
        right is not None and right.ndim > 1 and right.shape[-2] == 1
    )


def nan_guard(tensor: gs.Tensor) -> tuple[gs.Node, gs.Node] | None:
    """The IsNaN and the Where of Where(IsNaN(x), constant, x) if nothing else reads x; None otherwise.

    Exporters insert it after a Softmax in which a whole row may be masked with −infinity.
    """
    readers = consumers(tensor)
    if len(readers) != 2:
        return None
    check = next((n for n in readers if is_op(n, "IsNaN")), None)
    choice = next((n for n in readers if is_op(n, "Where")), None)
    if check is None or choice is None or len(consumers(check.outputs[0])) != 1:
        return None
    condition, then, other = choice.inputs
    return (check, choice) if condition is check.outputs[0] and is_constant(then) and other is tensor else None
