"""Is a model integer-only? Every float operator between its first QuantizeLinear and its last DequantizeLinear.

"Between" means: a QuantizeLinear lies somewhere upstream and a DequantizeLinear downstream. What prepares the input
upstream of the first QuantizeLinear, and what follows the last DequantizeLinear (a Softmax, say), is outside. So is
what is computed from the shape of a tensor alone (positions, a causal mask). A layer that computes with dequantized
weights, or only with dequantized operands, counts wherever it stands: it is a quantized layer that runs in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from onnxq.cost.layer_costs import is_dequantized_layer, known_tensors
from onnxq.errors import PassError
from onnxq.graph import topology
from onnxq.graph.identity import IdentitySet
from onnxq.graph.match import ONLY_SHAPE, STANDARD_DOMAINS, producer
from onnxq.graph.model import Model, from_proto, load, to_proto
from onnxq.graph.qdq import is_dequantize, is_quantize
from onnxq.graph.shapes import infer
from onnxq.lowering.graph import is_float_op
from onnxq.operators import DOMAIN


@dataclass(frozen=True)
class FloatOp:
    """A float operator between integers. reason: why it is there."""

    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node} ({self.op}): {self.reason}"

    def to_dict(self) -> dict[str, str]:
        """JSON types only."""
        return asdict(self)


def check_integer(
    model: str | Path | bytes | onnx.ModelProto | Model, reasons: Mapping[str, str] | None = None
) -> list[FloatOp]:
    """The float operators between the first QuantizeLinear and the last DequantizeLinear, in graph order.

    Layers on dequantized weights are among them wherever they stand. reasons: node → why it stayed float, if the model
    was lowered just now; else they are found by lowering a copy.
    Raises ModelError when the model cannot be read.
    """
    loaded = load(model)
    inside = _inside(loaded.graph)
    if not inside:
        return []
    known = reasons if reasons is not None else _reasons(loaded)
    return [FloatOp(n.name, n.op, known.get(n.name) or _reason(n)) for n in inside]


def _inside(graph: gs.Graph) -> list[gs.Node]:
    """The float operators that are between integers or a dequantized layer, or have one in a subgraph; in order."""
    between = IdentitySet(n for n in _between(graph) if _is_float(n))
    known = known_tensors(graph)

    def has_layer(node: gs.Node) -> bool:
        bodies = (a for a in node.attrs.values() if isinstance(a, gs.Graph))
        return is_dequantized_layer(node, known) or any(has_layer(n) for body in bodies for n in body.nodes)

    return [n for n in graph.nodes if n in between or has_layer(n)]


def _between(graph: gs.Graph) -> list[gs.Node]:
    """Nodes with a QuantizeLinear upstream and a DequantizeLinear downstream, in order."""
    upstream: IdentitySet[gs.Node] = IdentitySet()
    for node in graph.nodes:
        if node.op in ONLY_SHAPE:
            continue
        makers = (p for t in (*node.inputs, *topology.captured(node)) for p in t.inputs)
        if any(p in upstream or is_quantize(p) for p in makers):
            upstream.add(node)
    downstream: IdentitySet[gs.Node] = IdentitySet()
    for node in reversed(graph.nodes):
        if any(c in downstream or is_dequantize(c) for t in node.outputs for c in t.outputs):
            downstream.add(node)
    return [n for n in graph.nodes if n in upstream and n in downstream]


def _is_float(node: gs.Node) -> bool:
    """Whether a node between integers computes floats. Q and DQ count with what stands between them, else alone."""
    if is_quantize(node):
        return is_dequantize(producer(node.inputs[0]))
    return is_float_op(node)


def _reason(node: gs.Node) -> str:
    if is_quantize(node):
        return "it quantizes dequantized values again; onnxq lower turns it into an integer operator"
    if node.domain not in (*STANDARD_DOMAINS, DOMAIN):
        return f"it is of domain {node.domain}"
    return "it is not lowered; onnxq lower turns it into an integer operator"


def _reasons(model: Model) -> dict[str, str]:
    """Why nodes would stay float when the model is lowered."""
    from onnxq import pipeline
    from onnxq.context import PassContext

    copy = from_proto(to_proto(model), model.path)
    infer(copy.graph)
    try:
        reports = pipeline.run(copy, pipeline.parse("convert-opset{version=21},lower-dyadic"), PassContext(copy))
    except PassError as err:
        return {node.name: f"the model cannot be lowered: {err}" for node in model.graph.nodes}
    return {failure.node: failure.reason for report in reports for failure in report.skipped}
