"""Graphs that feed themselves and graphs nested without end are refused when they are read."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
from onnx import helper

from onnxq.errors import ModelError
from onnxq.graph.model import load
from onnxq.graph.structure import MOST_NESTED, check_structure


def model(body: str, outputs: str = "float[2] y") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => ({outputs}) {{ {body} }}'
    )


CYCLES = {
    "itself": "[bad] y = Identity(y)",
    "two": "[bad] a = Add(x, b) [bad2] b = Identity(a) y = Relu(b)",
    "unused": "y = Relu(x) [bad] a = Identity(b) [bad2] b = Identity(a)",
    "downstream": "[bad] a = Neg(b) [bad2] b = Neg(a) c1 = Relu(b) c2 = Relu(c1) y = Relu(c2)",
    "through a subgraph": """[bad] a = If(c) <then_branch = t () => (float[2] u) { u = Abs(b) },
        else_branch = e () => (float[2] v) { v = Relu(x) }> [bad2] b = Neg(a) y = Relu(b)""",
    "inside a subgraph": """y = If(c) <then_branch = t () => (float[2] u) { [bad] p = Abs(u) [bad2] u = Abs(p) },
        else_branch = e () => (float[2] v) { v = Relu(x) }>""",
}


@pytest.mark.parametrize("body", CYCLES.values(), ids=CYCLES)
def test_cycles_are_refused(body: str) -> None:
    with pytest.raises(ModelError, match=r"cycle through node bad2? \("):
        load(model(body))


def test_a_name_of_an_inner_graph_is_not_the_outer_one() -> None:
    """A subgraph that defines a name itself does not read the outer node's output of that name."""
    body = """y = If(c) <then_branch = t () => (float[2] u) { y2 = Abs(x) u = Relu(y2) },
        else_branch = e () => (float[2] v) { v = Relu(x) }>"""
    assert len(load(model(body)).graph.nodes) == 1


def test_deep_nesting_is_refused() -> None:
    out = [helper.make_empty_tensor_value_info("u")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["u"])], "g", [], out)
    for _ in range(MOST_NESTED + 1):
        graph = helper.make_graph([_nested(graph)], "g", [], out)
    proto = model("y = Relu(x)")
    proto.graph.node.append(_nested(graph))
    with pytest.raises(ModelError, match="nested more than"):
        load(proto)


def _nested(graph: onnx.GraphProto) -> onnx.NodeProto:
    leaf = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["u"])], "leaf", [], [helper.make_empty_tensor_value_info("u")]
    )
    return helper.make_node("If", ["c"], ["u"], then_branch=graph, else_branch=leaf)


def test_a_long_chain_is_no_cycle() -> None:
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(100_000)]
    check_structure(onnx.ModelProto(graph=onnx.GraphProto(node=nodes)), "m")
