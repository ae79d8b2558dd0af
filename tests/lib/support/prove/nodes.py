"""Nodes of a model by name and operator, what they read, and why a pass left them alone."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.model import Model
from onnxq.pipeline import PassReport
from support.runs import run


def reasons(report: PassReport) -> dict[str, str]:
    """Why nodes were skipped, by node."""
    return {failure.node: failure.reason for failure in report.skipped}


def nodes_of(source: Model, op: str) -> list[gs.Node]:
    """The nodes of an operator, in order."""
    return [n for n in source.graph.nodes if n.op == op]


def node_of(source: Model, name: str) -> gs.Node:
    """The node of a name."""
    return next(n for n in source.graph.nodes if n.name == name)


def reads(source: Model, name: str) -> list[str]:
    """Where a node's inputs come from: "DQ" after a DequantizeLinear, "const", else the name of the tensor."""
    found = []
    for tensor in node_of(source, name).inputs:
        made_by = tensor.inputs[0] if tensor.inputs else None
        if made_by is not None and made_by.op == "DequantizeLinear":
            found.append("DQ")
        else:
            found.append("const" if isinstance(tensor, gs.Constant) else tensor.name)
    return found


def dequantize_of(source: Model, name: str, index: int) -> gs.Node:
    """The DequantizeLinear that a node reads at an input."""
    made_by = node_of(source, name).inputs[index].inputs[0]
    assert made_by.op == "DequantizeLinear"
    return made_by


def dequantized(source: Model, name: str, index: int = 1) -> NDArray:
    """The constant that a node reads through a DequantizeLinear, as onnxruntime computes it."""
    made_by = dequantize_of(source, name, index)
    sub = gs.Graph([gs.Node("DequantizeLinear", "dq", dict(made_by.attrs), [], [])], opset=source.opset)
    sub.metadata = {}
    out = gs.Variable("out", np.float32)
    sub.nodes[0].inputs = [gs.Constant(t.name, t.values) for t in made_by.inputs]
    sub.nodes[0].outputs = [out]
    sub.outputs = [out]
    return run(Model(sub), {})["out"]
