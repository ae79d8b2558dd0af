"""Order, dead nodes and soundness, in subgraphs too."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.errors import PostconditionError
from onnxq.graph import topology
from onnxq.graph.walk import all_graphs
from support.build import floating
from support.runs import run

CHAIN = "g (float[3] x) => (float[3] y) { a = Neg(x) b = Exp(a) c = Abs(b) y = Add(c, a) }"
CONTROL = """g (float[3] x, bool c) => (float[3] y) {
    a = Neg(x)
    b = Exp(a)
    y = If (c) <
        then_branch = t () => (float[3] p) { i = Abs(b) p = Neg(i) },
        else_branch = e () => (float[3] q) { j = Neg(a) k = Exp(j) q = Neg(j) }
    >
}"""


def names(graph: gs.Graph) -> list[str]:
    return [n.name for n in graph.nodes]


@given(st.permutations(range(4)))
def test_any_order_is_mended(order):
    graph = floating.model(CHAIN).graph
    graph.nodes[:] = [graph.nodes[i] for i in order]
    topology.toposort(graph)
    assert names(graph) == ["a", "b", "c", "y"]


@given(st.integers(0, 2**32 - 1))
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    tensors = [gs.Variable("x", np.float32, [1])]
    nodes = []
    for i in range(12):
        sources = [tensors[int(k)] for k in rng.integers(0, len(tensors), 2)]
        tensors.append(gs.Variable(f"t{i}", np.float32, [1]))
        nodes.append(gs.Node("Add", f"n{i}", {}, sources, [tensors[-1]]))
    graph = gs.Graph([nodes[i] for i in rng.permutation(12)], [tensors[0]], [tensors[-1]], opset=17)
    topology.toposort(graph)
    assert sorted(names(graph)) == sorted(f"n{i}" for i in range(12))
    topology.verify(graph)


def test_what_is_sorted_stays_as_it_is():
    graph = floating.model(
        "g (float[3] x) => (float[3] y, float[3] z) { b = Neg(x) a = Exp(x) z = Abs(a) y = Abs(b) }"
    ).graph
    topology.toposort(graph)
    assert names(graph) == ["b", "a", "z", "y"]


def test_what_subgraphs_capture_comes_before_them():
    graph = floating.model(CONTROL).graph
    graph.nodes[:] = graph.nodes[::-1]
    for inner in list(all_graphs(graph))[1:]:
        inner.nodes[:] = inner.nodes[::-1]
    topology.toposort(graph)
    topology.verify(graph)
    assert names(graph) == ["a", "b", "y"]


def test_a_cycle_is_named():
    graph = floating.model(CHAIN).graph
    graph.nodes[0].inputs = [graph.nodes[2].outputs[0]]
    with pytest.raises(PostconditionError, match=r"cycle through node a"):
        topology.toposort(graph)


def test_dead_nodes_go_with_what_only_they_read():
    source = floating.model(CONTROL)
    feed = floating.feeds(source, 1)[0]
    before = run(source, feed)
    assert topology.remove_dead(source.graph) == 1  # k
    assert names(list(all_graphs(source.graph))[2]) == ["j", "q"]
    assert np.array_equal(before["y"], run(source, feed)["y"])
    assert topology.remove_dead(source.graph) == 0
    source.graph.outputs = [source.graph.nodes[0].outputs[0]]
    assert topology.remove_dead(source.graph) == 2  # the If lets go of b, and b of a
    assert names(source.graph) == ["a"]


def test_a_dead_node_inside_frees_what_it_captured():
    source = floating.model(CONTROL.replace("k = Exp(j)", "k = Exp(b)").replace("i = Abs(b)", "i = Abs(a)"))
    assert topology.remove_dead(source.graph) == 2  # k, then b that only k read
    assert names(source.graph) == ["a", "y"]


def test_outputs_are_not_dead():
    graph = floating.model("g (float[3] x) => (float[3] y, float[3] z) { y = Neg(x) z = Abs(x) d = Exp(x) }").graph
    assert topology.remove_dead(graph) == 1
    assert names(graph) == ["y", "z"]


def test_one_used_output_keeps_a_node():
    graph = floating.model("g (float[4] x) => (float[2] y) <int64[1] k = {2}> { v, i = TopK(x, k) y = Neg(v) }").graph
    assert topology.remove_dead(graph) == 0


def verify_fails(graph: gs.Graph) -> str:
    with pytest.raises(PostconditionError) as caught:
        topology.verify(graph)
    return str(caught.value)


def test_sound_graphs_pass():
    for text in (CHAIN, CONTROL):
        topology.verify(floating.model(text).graph)


def test_use_before_it_is_made():
    graph = floating.model(CHAIN).graph
    graph.nodes[:] = graph.nodes[::-1]
    assert verify_fails(graph) == "tensor c, read by node y (Add), is not produced by an earlier node"


def test_an_output_that_nothing_makes():
    graph = floating.model(CHAIN).graph
    graph.nodes.pop()
    assert "tensor y, read by the graph's outputs, is not produced by an earlier node" in verify_fails(graph)


def test_two_tensors_of_one_name():
    graph = floating.model(CHAIN).graph
    twin = gs.Variable("a", np.float32, [3])
    graph.nodes[-1].inputs[1] = twin
    assert verify_fails(graph) == "two tensors are named a, one read by node y (Add)"
    constants = floating.model("g (float[3] x) => (float[3] y) <float[3] w> { a = Add(x, w) y = Mul(a, w) }").graph
    constants.nodes[1].inputs[1] = gs.Constant("w", np.ones(3, np.float32))
    assert verify_fails(constants) == "two tensors are named w, one read by node y (Mul)"


def test_a_tensor_made_twice():
    graph = floating.model(CHAIN).graph
    graph.nodes.append(gs.Node("Neg", "again", {}, [graph.inputs[0]], [graph.outputs[0]]))
    assert verify_fails(graph) == "tensor y is produced twice, by nodes y and again"


def test_a_tensor_named_like_an_input():
    graph = floating.model(CHAIN).graph
    graph.nodes[0].outputs[0].name = "x"
    assert verify_fails(graph) == "tensor x, produced by node a, already exists"


def test_two_nodes_of_one_name():
    graph = floating.model(CONTROL).graph
    list(all_graphs(graph))[1].nodes[0].name = "a"
    assert verify_fails(graph) == "two nodes are named a"


def test_a_subgraph_may_not_read_what_another_made():
    graph = floating.model(CONTROL).graph
    then, other = list(all_graphs(graph))[1:]
    then.nodes[1].inputs = [other.nodes[0].outputs[0]]
    assert "tensor j, read by node p (Neg), is not produced by an earlier node" in verify_fails(graph)
