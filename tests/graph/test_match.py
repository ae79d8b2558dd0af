"""Looking at graphs: fan-out, outputs and captures are seen; rewiring leaves nothing behind."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.graph import match, topology
from onnxq.graph.match import belongs, editing, remove_nodes
from onnxq.graph.refusal import Refused
from onnxq.graph.walk import all_graphs
from support.build import floating

FORK = """g (float[3] x, bool c) => (float[3] y, float[3] z) <float[3] w> {
    h = Mul(x, w)
    a = Add(h, h)
    b = Neg(h)
    z = Exp(b)
    y = If (c) <
        then_branch = t () => (float[3] p) { p = Add(a, w) },
        else_branch = e () => (float[3] q) { i = Neg(a) q = Mul(i, h) }
    >
}"""


@pytest.fixture
def graph() -> gs.Graph:
    return floating.model(FORK).graph


def tensor(graph: gs.Graph, name: str) -> gs.Tensor:
    return next(g.tensors()[name] for g in all_graphs(graph) if name in g.tensors())


def node(graph: gs.Graph, name: str) -> gs.Node:
    return next(n for g in all_graphs(graph) for n in g.nodes if n.name == name)


def test_is_op_knows_domains(graph):
    assert match.is_op(node(graph, "h"), "Add", "Mul")
    assert not match.is_op(node(graph, "h"), "Add")
    for domain, standard in ((None, True), ("", True), ("ai.onnx", True), ("com.microsoft", False)):
        node(graph, "h").domain = domain
        assert match.is_op(node(graph, "h"), "Mul") == standard


def test_producer(graph):
    assert match.producer(tensor(graph, "h")).name == "h"
    assert match.producer(tensor(graph, "x")) is None
    assert match.producer(tensor(graph, "w")) is None


def test_consumers_are_distinct_and_reach_into_subgraphs(graph):
    assert sorted(n.name for n in match.consumers(tensor(graph, "h"))) == ["a", "b", "q"]
    assert sorted(n.name for n in match.consumers(tensor(graph, "w"))) == ["h", "p"]
    assert match.consumers(tensor(graph, "y")) == []


def test_sole_consumer(graph):
    outputs = match.output_ids(graph)
    assert match.sole_consumer(tensor(graph, "b"), outputs).name == "z"
    assert match.sole_consumer(tensor(graph, "i"), outputs).name == "q"
    for several_or_output in ("h", "a", "y", "z", "p"):
        assert match.sole_consumer(tensor(graph, several_or_output), outputs) is None


def test_outputs_of_subgraphs_count(graph):
    outputs = match.output_ids(graph)
    assert {t.name for g in all_graphs(graph) for t in g.tensors().values() if id(t) in outputs} == {"y", "z", "p", "q"}


def test_constants(graph):
    assert match.constant_values(tensor(graph, "w")).shape == (3,)
    assert match.constant_values(tensor(graph, "x")) is None
    assert match.scalar_value(gs.Constant("s", np.asarray([[2.5]]))) == 2.5
    assert match.scalar_value(tensor(graph, "w")) is None
    assert match.is_constant(tensor(graph, "w"))


def test_inputs_that_are_left_out():
    resize = floating.model(
        'g (float[1,1,2,2] x) => (float[1,1,4,4] y) <float[4] s = {1, 1, 2, 2}> { y = Resize(x, "", s) }'
    )
    (found,) = resize.graph.nodes
    assert match.input_at(found, 0).name == "x"
    assert match.input_at(found, 1) is None
    assert match.input_at(found, 2).name == "s"
    assert match.input_at(found, 3) is None


def test_types_and_ranks():
    assert match.is_float(gs.Variable("a", np.float32, [2]))
    assert not match.is_float(gs.Variable("a", np.float64, [2]))
    assert not match.is_float(gs.Variable("a", 16, [2]))  # bfloat16 has a number, no numpy type
    assert not match.is_float(gs.Variable("a"))
    assert match.rank(gs.Variable("a", np.float32, [2, "n"])) == 2
    assert match.rank(gs.Variable("a", np.float32, [])) == 0
    assert match.rank(gs.Variable("a")) is None


@pytest.mark.parametrize(
    ("shape", "own", "fits"),
    [
        ([], None, True),
        ([1], None, False),
        ([], ["n"], True),
        ([3], [2, 3], True),
        ([1, 3], [2, 3], True),
        ([2, 1], [2, 3], True),
        ([2], [2, 3], False),
        ([1, 1, 3], [2, 3], False),
        ([3], ["n"], False),
        ([1], ["n"], True),
        ([3], [1], False),
    ],
)
def test_broadcasting_that_keeps_a_shape(shape, own, fits):
    assert match.broadcasts_into(shape, gs.Variable("a", np.float32, own)) == fits


def test_fresh_names(graph):
    names = match.Names(graph)
    assert names.fresh("new") == "new"
    assert names.fresh("new") == "new_1"
    assert names.fresh("w") == "w_1"
    assert names.fresh("i") == "i_1"  # of a subgraph


def test_belongs(graph):
    assert match.belongs(graph, node(graph, "h"))
    assert not match.belongs(graph, node(graph, "q"))


def test_replace_everywhere(graph):
    fresh = gs.Variable("fresh", np.float32, [3])
    match.replace_everywhere(graph, tensor(graph, "h"), fresh)
    assert [t.name for t in node(graph, "a").inputs] == ["fresh", "fresh"]
    assert node(graph, "q").inputs[1] is fresh
    assert sorted(n.name for n in match.consumers(fresh)) == ["a", "b", "q"]


def test_removed_nodes_let_go_of_what_their_subgraphs_captured(graph):
    match.remove_nodes(graph, [node(graph, "y")])
    assert [n.name for n in match.consumers(tensor(graph, "h"))] == ["a", "b"]
    assert match.consumers(tensor(graph, "a")) == []
    assert [n.op for n in graph.nodes] == ["Mul", "Add", "Neg", "Exp"]


def test_bypass_inside(graph):
    assert match.bypass(graph, node(graph, "a"), tensor(graph, "h"), match.output_ids(graph)) is None
    topology.verify(graph)
    assert sorted(n.name for n in match.consumers(tensor(graph, "h"))) == ["b", "i", "p", "q"]


def test_bypass_at_an_output_keeps_its_name(graph):
    assert match.bypass(graph, node(graph, "z"), tensor(graph, "b"), match.output_ids(graph)) is None
    topology.verify(graph)
    assert node(graph, "b").outputs[0] is graph.outputs[1]
    assert [t.name for t in graph.outputs] == ["y", "z"]


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("z", "x", "it connects input x to output z"),
        ("z", "w", "it produces output z from a constant"),
        ("z", "y", "its input y and its result z are both outputs"),
        ("p", "a", "its input a comes from outside the subgraph"),
    ],
)
def test_why_a_node_cannot_be_bypassed(graph, name, source, reason):
    before = [n.name for g in all_graphs(graph) for n in g.nodes]
    found = node(graph, name)
    home = next(g for g in all_graphs(graph) if match.belongs(g, found))
    assert match.bypass(home, found, tensor(graph, source), match.output_ids(graph)) == Refused(reason)
    assert [n.name for g in all_graphs(graph) for n in g.nodes] == before


def test_a_failure_as_text():
    assert str(match.MatchFailure("it is shared", "conv1")) == "conv1: it is shared"


def test_removals_while_editing_happen_together(graph):
    nodes = list(graph.nodes)
    with editing(graph):
        remove_nodes(graph, [nodes[0]])
        with editing(graph):  # joins the outer one
            remove_nodes(graph, [nodes[1]])
        assert not nodes[0].inputs
        assert not nodes[1].outputs
        assert len(graph.nodes) == len(nodes)
        added = gs.Node("Neg", "added")
        graph.nodes.insert(1, added)
        assert belongs(graph, added)
    assert [id(n) for n in graph.nodes] == [id(n) for n in (added, *nodes[2:])]
    assert not belongs(graph, nodes[0])


def test_removals_while_editing_reach_only_nodes_of_the_graph(graph):
    other = gs.Node("Neg", "other", inputs=[gs.Variable("a")], outputs=[gs.Variable("b")])
    with editing(graph):
        remove_nodes(graph, [other])
    assert other.inputs
    assert other.outputs


def test_removals_happen_although_an_error_ends_the_edit(graph):
    node = graph.nodes[0]
    with pytest.raises(KeyError), editing(graph):
        remove_nodes(graph, [node])
        raise KeyError
    assert all(n is not node for n in graph.nodes)
    remove_nodes(graph, list(graph.nodes))  # at once again
    assert not graph.nodes
