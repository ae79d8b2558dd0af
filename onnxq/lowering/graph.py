"""Lower a whole graph: every node in order, by its operator's handler. Nodes that have none, or refuse, stay float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph import topology
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import (
    ONLY_SHAPE,
    STANDARD_DOMAINS,
    MatchFailure,
    belongs,
    consumers,
    editing,
    further_outputs,
    is_constant,
    is_op,
    producer,
    remove_nodes,
)
from onnxq.graph.qdq import CONTRIB, is_dequantize, is_quantize, pair
from onnxq.graph.refusal import RefusedError
from onnxq.graph.shapes import element_type, infer, is_floating
from onnxq.lowering import tables
from onnxq.lowering.anchor import anchor
from onnxq.lowering.handlers import Handler, handlers
from onnxq.lowering.integers import Integers, dequantized
from onnxq.lowering.ledger import Work
from onnxq.lowering.normalization import lower_norm
from onnxq.lowering.requantize import lower_quantize
from onnxq.numeric.dyadic import Form
from onnxq.operators import DOMAIN
from onnxq.patterns.attention import nan_guard
from onnxq.patterns.normalization import Norm, find_norms


def lower_graph(graph: gs.Graph, form: Form = "auto") -> Work:
    """Replace, in place, what can be computed in integers; the result records what was done and what was not.

    form: of the multipliers, "auto", "fixed" or "general" (lowering.rescale). Subgraphs are unchanged.
    """
    topology.toposort(graph)
    _standardize(graph)
    _drop_nan_guards(graph)
    work = Work(graph, form)
    norms = IdentityMap((n, norm) for norm in find_norms(graph) for n in norm.nodes)
    for node in list(graph.nodes):
        norm = norms.get(node)
        if norm is None:
            _try(work, node, _lower, node)
        elif node is norm.root and not _try(work, node, lower_norm, norm):
            _lower_parts(work, norm, [n for n in graph.nodes if norms.get(n) is norm])
    _dequantize_the_rest(work)
    work.finish()
    topology.toposort(graph)
    topology.remove_dead(graph)
    anchor(work)
    return work


def _standardize(graph: gs.Graph) -> None:
    """Convert onnxruntime's own Q/DQ to ONNX's from opset 21 on; shape inference works through those."""
    contrib = [n for n in graph.nodes if n.domain == CONTRIB and (is_quantize(n) or is_dequantize(n))]
    for node in contrib:
        node.domain = None
    if contrib:
        infer(graph)


def _drop_nan_guards(graph: gs.Graph) -> None:
    """Remove NaN guards: integers are never NaN, and neither is a Softmax of them."""
    with editing(graph):
        for node in list(graph.nodes):
            if not is_op(node, "Softmax") or not is_dequantize(producer(node.inputs[0])):
                continue
            guard = nan_guard(node.outputs[0])
            if guard is None or not belongs(graph, guard[1]):
                continue
            result = guard[1].outputs[0]
            remove_nodes(graph, guard)
            node.outputs[0] = result


def _try(work: Work, node: gs.Node, step: Callable[[Work, Any], None], what: Any) -> bool:
    """Run a step that lowers a node still in the graph; returns whether it did, and records in `reasons` why not."""
    if node in work.taken:
        return True
    work.current = node
    try:
        step(work, what)
    except RefusedError as err:
        work.reasons[node] = err.refused.reason
        return False
    return True


def _lower_parts(work: Work, norm: Norm, parts: list[gs.Node]) -> None:
    """Lower the nodes of a normalization one by one, if it is not lowered as a whole."""
    reason = work.reasons[norm.root]
    for part in parts:
        _try(work, part, _lower, part)
        work.reasons[part] = reason  # of those that remain


def _lower(work: Work, node: gs.Node) -> None:
    if is_quantize(node):
        lower_quantize(work, node)
    elif is_dequantize(node):
        _read_dequantize(work, node)
    elif node.domain in STANDARD_DOMAINS and any(_in_integers(work, t) for t in node.inputs):
        if node.op in ONLY_SHAPE:
            value = work.values.get(node.inputs[0])
            if value is not None:
                node.inputs[0] = value.tensor
        elif (handler := _handler(node.op)) is not None:
            further = [] if node.op == "Split" else further_outputs(node, work.outputs)
            if further:  # no integer operator has it: a mask, indices, a mean
                raise RefusedError(f"its further output {further[0].name} is read as well")
            handler(work, node)


def _handler(op: str) -> Handler | None:
    """The handler of the operator; a function of one value without a handler becomes a table."""
    return handlers().get(op) or (tables.lower_function if op in tables.FUNCTIONS else None)


def _in_integers(work: Work, tensor: gs.Tensor) -> bool:
    """Whether a tensor is known in integers, or a constant that a DequantizeLinear reads."""
    if tensor in work.values or tensor in work.functions:
        return True
    made_by = producer(tensor)
    return made_by is not None and is_dequantize(made_by) and is_constant(made_by.inputs[0])


def _read_dequantize(work: Work, node: gs.Node) -> None:
    """A DequantizeLinear of an activation: record the integers of its result."""
    source = node.inputs[0]
    quantize = pair(node)
    if is_constant(source) or (quantize is not None and is_constant(quantize.inputs[0])):
        return  # a weight, a bias or another constant
    low, high = work.limits.get(source, (None, None))
    value = dequantized(node, low, high)
    if value is not None:
        work.values[node.outputs[0]] = value


def _dequantize_the_rest(work: Work) -> None:
    """Insert a DequantizeLinear for every float tensor that is still read although its producer was removed."""
    for tensor in work.tensors:
        value = work.values.get(tensor)
        if value is None or tensor.inputs or not (tensor.outputs or id(tensor) in work.outputs):
            continue
        work.values.pop(tensor)
        work.current = next((n for n in consumers(tensor) if work.at_top(n)), None)
        _dequantize(work, value, tensor)


def _dequantize(work: Work, value: Integers, tensor: gs.Tensor) -> None:
    """The DequantizeLinear of a tensor; in float32, since an accumulator's scale may need that range."""
    kind = np.dtype(tensor.dtype or np.float32) if not isinstance(tensor.dtype, int) else np.dtype(np.float32)
    whole = isinstance(tensor.dtype, int) or kind.itemsize < 4
    result = work.variable(f"{tensor.name}_float", "float32", tensor.shape) if whole else tensor
    inputs = [
        value.tensor,
        work.constant(f"{tensor.name}_scale", np.asarray(value.scale, np.float32 if whole else kind)),
    ]
    if not value.wide:
        zero = np.full(value.scale.shape, value.zero_point, np.dtype(value.type))
        inputs.append(work.constant(f"{tensor.name}_zero_point", zero))
    attrs = {} if value.axis is None else {"axis": value.axis}
    work.node("DequantizeLinear", inputs, [result], attrs, name=f"{tensor.name}_DequantizeLinear")
    if whole:
        work.node("Cast", [result], [tensor], {"to": element_type(tensor)}, name=f"{tensor.name}_Cast")


def islands(graph: gs.Graph, work: Work) -> list[MatchFailure]:
    """The operators that stay float, each with the reason."""
    return [MatchFailure(work.reasons.get(n) or _reason(n), n.name) for n in graph.nodes if is_float_op(n)]


def is_float_op(node: gs.Node) -> bool:
    """Whether the node computes floats: not Q/DQ, not one of com.onnxq, and not one for only shapes and indices."""
    if is_quantize(node) or is_dequantize(node) or node.domain == DOMAIN or node.op == "Constant":
        return False
    return any(_is_real(t) for t in node.outputs if not t.is_empty())


def _is_real(tensor: gs.Tensor) -> bool:
    if tensor.dtype is None:
        return True
    if isinstance(tensor.dtype, int):
        return True  # float8 and the like
    return is_floating(np.dtype(tensor.dtype))


def _reason(node: gs.Node) -> str:
    if any(isinstance(a, gs.Graph) for a in node.attrs.values()):
        return "it has a subgraph, which is not lowered"
    if node.domain not in STANDARD_DOMAINS:
        return f"it is in domain {node.domain}"
    if node.op in tables.FUNCTIONS:
        return "no QuantizeLinear follows it, and the results of a table are codes"
    if _handler(node.op) is None:
        return f"{node.op} has no integer operator"
    return "its input is not quantized"
