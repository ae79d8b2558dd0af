"""The walk of a pass: steps in order, every graph, counts and refusals; and the two forms of a refusal."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest

from onnxq.graph.match import MatchFailure
from onnxq.graph.names import fresh_name
from onnxq.graph.refusal import Refused, RefusedError
from onnxq.graph.sweep import sweep


def _graph() -> gs.Graph:
    inner = gs.Graph(nodes=[gs.Node("Abs", "c")])
    return gs.Graph(nodes=[gs.Node("Relu", "a"), gs.Node("If", "b", {"then_branch": inner})])


def test_every_step_at_every_node_of_every_graph() -> None:
    seen: list[str] = []

    def first(graph: gs.Graph, node: gs.Node) -> int | Refused:
        seen.append(f"1{node.name}")
        return Refused("it is a Relu") if node.op == "Relu" else 0

    def second(graph: gs.Graph, node: gs.Node) -> int | Refused:
        seen.append(f"2{node.name}")
        return len(graph.nodes)

    assert sweep(_graph(), first, second) == (5, (MatchFailure("it is a Relu", "a"),))
    assert seen == ["1a", "1b", "2a", "2b", "1c", "2c"]


def test_nodes_that_a_step_adds_are_not_visited() -> None:
    def doubled(graph: gs.Graph, node: gs.Node) -> bool:
        graph.nodes.append(gs.Node("Neg", f"{node.name}_more"))
        return True

    assert sweep(_graph(), doubled) == (3, ())


def test_a_refusal_raised_is_the_one_returned() -> None:
    with pytest.raises(RefusedError, match=r"^its rank is not known$") as caught:
        raise RefusedError("its rank is not known")
    assert caught.value.refused == Refused("its rank is not known") and str(caught.value.refused) == str(caught.value)


def test_fresh_names() -> None:
    taken = {"x", "x_1"}
    assert (fresh_name("x", taken), fresh_name("y", taken), fresh_name("y", taken)) == ("x_2", "y", "y_1")
    assert taken == {"x", "x_1", "x_2", "y", "y_1"}
