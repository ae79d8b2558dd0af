"""What a target would reject or run in float in a QDQ model: its numbers (formats.py), and its Q/DQ against the plan.

The model is copied without its Q/DQ and planned anew, as `onnxq quantize --requantize` does; what stands elsewhere than
planned is a finding (against_plan.py). So both are decided by the rules of placement.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxq import pipeline
from onnxq.check.against_plan import compare, downstream, upstream
from onnxq.check.findings import Finding
from onnxq.check.formats import Formats
from onnxq.context import PassContext
from onnxq.errors import OnnxqError, first_line
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import bypass, consumers, editing, input_at, is_constant, is_op, output_ids, remove_nodes
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.graph.movement import NO_INT8_POINT, is_moved
from onnxq.graph.qdq import describe, is_dequantize, is_quantize
from onnxq.graph.walk import all_graphs
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.strip_qdq import StripQdq
from onnxq.patterns.attention import feeds_softmax
from onnxq.profiles.schema import Profile

FLOAT_TWIN = (StripQdq(), EliminateIdentity())


def check_qdq(model: Model, target: Profile) -> list[Finding]:
    """Findings about a model with Q/DQ or integer operators, graph by graph, in their order."""
    findings: list[Finding] = []
    try:
        pairs = list(_pairs(model.graph, _float_twin(model, target).graph))
    except OnnxqError as err:
        problem = f"its Q/DQ cannot be removed: {first_line(err)}"
        findings.append(Finding("reject", "", problem, "fix the reported error"))
        pairs = [(graph, None) for graph in all_graphs(model.graph)]
    for graph, twin in pairs:
        findings += _check_graph(graph, twin, target)
    return findings


def _check_graph(graph: gs.Graph, twin: gs.Graph | None, target: Profile) -> Iterator[Finding]:
    fill_types(graph)
    scores = feeds_softmax(graph)
    formats = Formats(target, scores)
    comparison = None if twin is None else compare(graph, twin, target, scores)
    for node in graph.nodes:
        if is_quantize(node) or is_dequantize(node):
            yield from formats.qdq(node)
            if target.runtime == "onnxruntime":
                yield from _movement(node, int(graph.opset))
            continue
        if comparison is not None:
            yield from upstream(node, comparison)
        if is_op(node, *LINEAR_OPS) and target.rule(node.op).action == "quantized":
            yield from formats.layer(node)
        if comparison is not None:
            yield from downstream(node, comparison)


def _movement(node: gs.Node, opset: int) -> Iterator[Finding]:
    """A DequantizeLinear that onnxruntime moves past what reads it, and then refuses or computes wrong."""
    if not is_dequantize(node) or is_constant(node.inputs[0]) or not is_moved(node.outputs[0]):
        return
    info = describe(node)
    has_point = input_at(node, 2) is not None
    if info.axis is not None or info.type not in ("int8", "int32"):
        return
    if info.type == "int8" and has_point == (opset < NO_INT8_POINT):
        return
    effect = "refuses the QuantizeLinear that it makes" if opset >= NO_INT8_POINT else "saturates its values to uint8"
    remedy = (
        "leave out a zero point of 0, or " if has_point else "give it a zero point, or " if info.type == "int8" else ""
    )
    yield Finding(
        "reject",
        node.name,
        f"onnxruntime moves this DequantizeLinear of {info.type} past an operator that only moves values, and {effect}",
        f"{remedy}repeat its scale along an axis (onnxq lower does)",
    )


def _pairs(graph: gs.Graph, twin: gs.Graph | None) -> Iterator[tuple[gs.Graph, gs.Graph | None]]:
    """The graph and its bodies at any depth, with what is left of each in the twin; dead nodes are gone there."""
    yield graph, twin
    others = {} if twin is None else {node.name: node for node in twin.nodes}
    for node in graph.nodes:
        for key, body in node.attrs.items():
            if isinstance(body, gs.Graph):
                yield from _pairs(body, others[node.name].attrs[key] if node.name in others else None)


def _float_twin(model: Model, target: Profile) -> Model:
    """A copy without Q/DQ. What a DequantizeLinear makes of integers from elsewhere is like an input of it."""
    twin = from_proto(to_proto(model), path=model.path, sha256=model.sha256)
    pipeline.run(twin, FLOAT_TWIN, PassContext(twin, target))
    known = {node.name for graph in all_graphs(model.graph) for node in graph.nodes}
    outputs = output_ids(twin.graph)
    for graph in all_graphs(twin.graph):
        remove_nodes(graph, [node for node in graph.nodes if is_dequantize(node)])
        with editing(graph):
            for node in [n for n in graph.nodes if n.name not in known and n.outputs]:
                # A saturation taken for a Relu, with a Relu after it: there was none.
                readers = [] if id(node.outputs[0]) in outputs else consumers(node.outputs[0])
                if readers and all(is_op(reader, "Relu", "Clip") for reader in readers):
                    bypass(graph, node, node.inputs[0], outputs)
    return twin
