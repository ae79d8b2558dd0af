"""check_node: what is wrong with a node of com.onnxq, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest

from onnxq.graph.model import load
from onnxq.operators import check_node
from support.cases.operators import Draw
from support.cases.operators.conv import conv
from support.prove.operator_bodies import model

CASE = conv(Draw(30), (2, 7, 6, 8), (12, 3, 2, 4), w="int4", zero_points="many", pads=(1, 0, 2, 1))


def node(**changes: Any) -> gs.Node:
    """A Conv as a graph node; changes to attributes, None takes one away."""
    y = CASE.expected()
    (made,) = load(model(CASE.op, CASE.arrays, CASE.attributes, y)).graph.nodes
    made.attrs |= changes
    made.attrs = {k: v for k, v in made.attrs.items() if v is not None}
    return made


def test_nothing_is_wrong() -> None:
    assert check_node(node()) == []
    proto = onnx.parser.parse_node("y = com.onnxq.MaxPool<kernel_shape=[2,2]>(x)")
    assert check_node(proto) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"qmin": None}, "attribute qmin is missing"),
        ({"axis": 1}, "Conv has no attribute axis"),
        ({"group": 1.5}, "attribute group is 1.5, it must be an integer"),
        ({"group": [1]}, "attribute group is [1], it must be an integer"),
        ({"group": 0}, "attribute group is 0, it must be at least 1"),
        ({"strides": 2}, "attribute strides is 2, it must be a list of integers"),
        ({"strides": [1, 2, 3]}, "attribute strides has 3 values instead of 2"),
        ({"pads": [0, -1, 0, 0]}, "attribute pads is [0, -1, 0, 0], it must be at least 0"),
        ({"y_type": 7}, "attribute y_type is 7, it must be 2 (uint8), 3 (int8), 5 (int16) or 6"),
        ({"qmin": -1, "y_type": 2}, "[qmin, qmax] is [-1, "),
        ({"qmin": 9, "qmax": 8}, "[qmin, qmax] is [9, 8], not a range within y's type, 0 to 255"),
    ],
)
def test_attributes(changes: dict[str, Any], problem: str) -> None:
    (found,) = check_node(node(**changes))
    assert found.startswith(problem)


def test_tensors() -> None:
    made = node()
    made.inputs[0].dtype = np.dtype(np.float32)
    made.inputs[2] = gs.Variable("bias", np.int32, [12])
    made.inputs[3] = gs.Constant("m", np.array([-1], np.int32))
    made.inputs[4] = gs.Constant("s", np.array([1, 63], np.int32))
    made.inputs[5] = gs.Variable.empty()
    assert check_node(made) == [
        "input x is float, it must be uint8 or int8",
        "input bias must be an initializer",
        "input multiplier has values outside 0 to 2147483647",
        "input shift has values outside 1 to 62",
        "input w_zero_point is missing",
    ]


def test_numbers_of_inputs_and_outputs() -> None:
    made = node()
    made.inputs.pop()
    made.outputs.append(gs.Variable("more"))
    assert check_node(made) == [
        "Conv has 5 inputs instead of 6: x, w, bias, multiplier, shift, w_zero_point",
        "Conv has 2 outputs instead of one",
    ]


def test_unknown_operator() -> None:
    (problem,) = check_node(onnx.parser.parse_node("y = com.onnxq.Concat9<axis=1>(x)"))
    assert problem.startswith("com.onnxq has no operator Concat9; it has Add, AveragePool, ")
