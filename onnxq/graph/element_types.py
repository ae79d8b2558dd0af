"""Element types that shape inference leaves unknown because it stops at unknown operators.

An operator's schema states which operands share a type: once one of them is known (a weight, for example), all are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import onnx
import onnx_graphsurgeon as gs

from onnxq.graph.match import STANDARD_DOMAINS


def fill_types(graph: gs.Graph) -> int:
    """Set unknown dtypes in the top-level graph that follow from another operand; returns how many were set."""
    filled = 0
    if not any(t.dtype is None for n in graph.nodes for t in (*n.inputs, *n.outputs) if not t.is_empty()):
        return 0
    while True:
        found = sum(_fill(group) for node in graph.nodes for group in _groups(node, graph.opset))
        if not found:
            return filled
        filled += found


def _fill(tensors: list[gs.Tensor]) -> int:
    known = next((t.dtype for t in tensors if t.dtype is not None), None)
    unknown = [t for t in tensors if t.dtype is None]
    if known is None:
        return 0
    for tensor in unknown:
        tensor.dtype = known
    return len(unknown)


def _groups(node: gs.Node, opset: int) -> Iterator[list[gs.Tensor]]:
    """Groups of the node's operands that share a type."""
    if node.domain not in STANDARD_DOMAINS:
        return
    inputs, outputs = _type_names(node.op, opset)
    groups: dict[str, list[gs.Tensor]] = {}
    for names, tensors in ((inputs, node.inputs), (outputs, node.outputs)):
        for i, tensor in enumerate(tensors):
            name = names[min(i, len(names) - 1)] if names else ""
            if name and not tensor.is_empty():
                groups.setdefault(name, []).append(tensor)
    yield from groups.values()


@cache
def _type_names(op: str, opset: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The type variable of each input and output; "" for a fixed type or a list of mixed types."""
    try:
        schema = onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return (), ()
    # Sequences and optionals carry the same variables inside a container: leave those operators alone.
    tensors_only = {
        c.type_param_str for c in schema.type_constraints if all(t.startswith("tensor(") for t in c.allowed_type_strs)
    }
    inputs, outputs = (
        tuple(p.type_str if p.is_homogeneous and p.type_str in tensors_only else "" for p in parameters)
        for parameters in (schema.inputs, schema.outputs)
    )
    return inputs, outputs


__all__ = ["fill_types"]
