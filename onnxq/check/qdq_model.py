"""What a target would reject or run in float in a QDQ model: its numbers (formats.py), and its Q/DQ against the plan.

The model is copied without its Q/DQ and planned anew, as `onnxq quantize --requantize` does; what stands elsewhere than
planned is a finding (against_plan.py). So both are decided by the rules of placement.
"""

from __future__ import annotations

from onnxq import pipeline
from onnxq.check.against_plan import compare, misplaced
from onnxq.check.findings import Finding
from onnxq.check.formats import Formats
from onnxq.context import PassContext
from onnxq.errors import OnnxqError
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import is_op, remove_nodes
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.graph.qdq import is_dequantize, is_quantize
from onnxq.graph.walk import all_graphs
from onnxq.patterns.attention import feeds_softmax
from onnxq.profiles.schema import Profile

FLOAT_TWIN = "strip-qdq,eliminate-identity"


def check_qdq(model: Model, target: Profile) -> list[Finding]:
    """Findings about a model with Q/DQ or integer operators, graph by graph, in their order."""
    try:
        twin = _float_twin(model, target)
    except OnnxqError as err:
        findings = [Finding("reject", "", f"its Q/DQ cannot be taken out: {err}", "fix the reported error")]
        comparisons = None
    else:
        findings = []
        pairs = zip(all_graphs(model.graph), all_graphs(twin.graph), strict=True)
        comparisons = [compare(graph, bare, target) for graph, bare in pairs]
    for i, graph in enumerate(all_graphs(model.graph)):
        fill_types(graph)
        formats = Formats(target, feeds_softmax(graph))
        for node in graph.nodes:
            if is_quantize(node) or is_dequantize(node):
                findings += formats.qdq(node)
                continue
            if comparisons is not None:
                findings += misplaced(node, comparisons[i])
            if is_op(node, *LINEAR_OPS) and target.rule(node.op).action == "quantized":
                findings += formats.layer(node)
    return findings


def _float_twin(model: Model, target: Profile) -> Model:
    """A copy without Q/DQ. What a DequantizeLinear makes of integers from elsewhere is like an input of it."""
    twin = from_proto(to_proto(model), path=model.path, sha256=model.sha256)
    pipeline.run(twin, pipeline.parse(FLOAT_TWIN), PassContext(twin, target))
    for graph in all_graphs(twin.graph):
        remove_nodes(graph, [node for node in graph.nodes if is_dequantize(node)])
    return twin
