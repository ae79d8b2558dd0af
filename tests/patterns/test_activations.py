"""Functions of one tensor that are spelled out."""

from __future__ import annotations

import pytest

from onnxq.graph.model import Model
from onnxq.patterns.activations import find_functions
from support.build import floating

CONSTANTS = """<float one = {1}, float half = {0.5}, float root = {1.4142135}, float three = {3}, float c = {0.044715},
    float pi = {0.79788}, float six = {6}, float zero = {0}, float[8] many>"""
GELU = "a = Div(x, root) b = Erf(a) e = Add(b, one) f = Mul(x, e) y = Mul(f, half)"
FOUND = {
    "GELU from Erf": GELU,
    "GELU from Tanh": """a = Pow(x, three) b = Mul(a, c) d = Add(x, b) e = Mul(d, pi) f = Tanh(e) h = Add(f, one)
        i = Mul(x, half) y = Mul(i, h)""",
    "swish": "a = Sigmoid(x) y = Mul(x, a)",
    "HardSwish in pieces": "a = Add(x, three) b = Clip(a, zero, six) d = Mul(x, b) y = Div(d, six)",
    "Mish": "a = Softplus(x) b = Tanh(a) y = Mul(x, b)",
    "a square and more": "a = Mul(x, x) y = Add(a, one)",
}
NONE = {
    "one node": "y = Sigmoid(x)",
    "sums and products with numbers": "a = Mul(x, half) y = Add(a, one)",
    "clamps": "a = Relu(x) y = Clip(a, zero, six)",
    "a number for each channel": "a = Mul(x, many) y = Sigmoid(a)",
    "a reader between": "a = Sigmoid(x) t = ReduceSum<keepdims=1>(a) d = Mul(x, a) y = Add(d, t)",
}


def model(nodes: str) -> Model:
    return floating.model(f"g (float[2,8] x) => (float[2,8] y) {CONSTANTS} {{ {nodes} }}")


@pytest.mark.parametrize("name", FOUND)
def test_is_found(name: str) -> None:
    graph = model(FOUND[name]).graph
    (function,) = find_functions(graph)
    assert [n.name for n in function.nodes] == [n.name for n in graph.nodes] and function.x.name == "x"
    readers = [(id(n), i) for n in graph.nodes for i, t in enumerate(n.inputs) if t.name == "x"]
    assert [(id(n), i) for n, i in function.reads] == readers


@pytest.mark.parametrize("name", NONE)
def test_what_is_none(name: str) -> None:
    assert find_functions(model(NONE[name]).graph) == []


def test_a_clamp_in_front_belongs_to_the_layer_before() -> None:
    (function,) = find_functions(model("r = Relu(x) a = Sigmoid(r) y = Mul(r, a)").graph)
    assert function.x.name == "r" and len(function.nodes) == 2


def test_of_two_tensors_only_the_part_that_has_one() -> None:
    nodes = "t = Add(x, z) a = Sigmoid(t) b = Mul(t, a) y = Mul(b, z)"
    text = f"g (float[2,8] x, float[2,8] z) => (float[2,8] y) {CONSTANTS} {{ {nodes} }}"
    (function,) = find_functions(floating.model(text).graph)
    assert [n.op for n in function.nodes] == ["Sigmoid", "Mul"] and function.x.name == "t"


def test_an_inner_tensor_that_is_an_output_ends_it() -> None:
    text = f"g (float[2,8] x) => (float[2,8] y, float[2,8] a) {CONSTANTS} {{ {FOUND['swish']} }}"
    assert find_functions(floating.model(text).graph) == []


def test_taken_nodes_are_left_alone() -> None:
    graph = model(GELU).graph
    assert find_functions(graph, {id(n) for n in graph.nodes}) == []
