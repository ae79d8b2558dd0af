"""What cannot be quantized, and the reason that is given."""

import numpy as np
import onnx
import pytest

from onnxq.graph.element_types import fill_types
from onnxq.graph.match import is_float
from onnxq.graph.model import from_proto
from support.build import qdq
from support.placements import CONV, planned, points, why
from support.prove.nodes import node_of

# What cannot be quantized, and why

REASONS = {
    "empty weight": (
        "g (float[1,4,6,6] x) => (float[1,0,6,6] y) <float[0,4,1,1] w> { [n] y = Conv(x, w) }",
        "its weight is empty",
    ),
    "constant data": (
        "g (float[1] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[1,4,6,6] k> { [n] y = Conv(k, w) u = Relu(x) }",
        "its data input is a constant",
    ),
    "weight at run time": (
        "g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { [n] y = Conv(x, w) }",
        "its weight is computed at run time",
    ),
    "float16": (
        "g (float16[1,2] x) => (float16[1,2] y) <float16[2,2] w = {1,2,3,4}> { [n] y = MatMul(x, w) }",
        "its operands are not float32 (float16, float16)",
    ),
    "other domain": (
        "g (float[1,4] x) => (float[1,4] y) { [n] y = own.Conv(x, x) }",
        "profile onnxruntime-cpu runs Conv in float",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_reasons(case: str) -> None:
    text, reason = REASONS[case]
    if case == "other domain":
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 13, "own": 1]>\n{text}')
        placement = planned(from_proto(proto))
    else:
        placement = planned(qdq.model(text))
    assert why(placement)["n"] == reason and not placement.layers


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite(value: float) -> None:
    w = np.ones((4, 4, 1, 1), np.float32)
    w[1, 2] = value
    placement = planned(qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ [n] y = Conv(x, w) }}", w=w))
    assert why(placement) == {"n": "its weight holds NaN or infinity"} and not placement.points


def test_matmul_of_two_activations() -> None:
    text = "g (float[2,3] x, float[3,4] z) => (float[2,4] y) { [n] y = MatMul(x, z) }"
    assert points(planned(qdq.model(text), "onnxruntime-cpu")) == {"x": [("n", 0)], "z": [("n", 1)]}
    reason = "profile fbgemm does not quantize products of two activations"
    assert why(planned(qdq.model(text), "fbgemm")) == {"n": reason}


def test_matmul_with_the_constant_first_is_per_tensor() -> None:
    placement = planned(qdq.model("g (float[3,4] x) => (float[2,4] y) <float[2,3] w> { [n] y = MatMul(w, x) }"))
    (layer,) = placement.layers
    assert (layer.weight_index, layer.per_channel) == (0, False) and points(placement) == {"x": [("n", 1)]}


def test_bodies_of_control_flow_stay_float_with_a_reason() -> None:
    text = """g (float[1,4,6,6] x, bool b) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v>
    { [first] s = Conv(x, v)
      [branch] z = If(b) <
        then_branch = th () => (float[1,4,6,6] p) { [then_conv] t = Conv(x, w) [then_relu] p = Relu(t) },
        else_branch = el () => (float[1,4,6,6] q) { [else_conv] u = Conv(x, w) [else_relu] q = Relu(u) }>
      [sum] y = Add(z, s) }"""
    placement = planned(qdq.model(text))
    assert placement.actions["then_conv"] == placement.actions["else_conv"] == "float"
    assert why(placement)["then_conv"] == "inside the body of If branch, whose tensors cannot be observed"
    assert points(placement)["z"] == [("sum", 0)]  # the If's own output can be observed


def test_constants_that_stay_as_they_are() -> None:
    """A sum takes any float constant, a product one factor for each channel; others are quantized."""
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w, float[4,1,1] k, float[4,6,6] l, float[4,6,6] m>
    { [c] a = Conv(x, w) [one] b = Mul(a, k) [many] d = Mul(b, l) [sum] y = Add(d, m) }"""
    placement = planned(qdq.model(text), "onnxq")
    assert [(node.name, index) for node, index, _ in placement.constants] == [("many", 1)]
    assert {n for n, action in placement.actions.items() if action == "quantized"} == {"c", "one", "many", "sum"}


MORE_THAN_MOVING = {
    'Resize<mode="linear">(a, , f)': "it interpolates (linear)",
    "Pad(a, pads, one)": "it pads with something else than zeros",
    "Div(a, a)": "it divides by an activation",
}


@pytest.mark.parametrize("text", MORE_THAN_MOVING)
def test_what_only_looks_like_moving_values_stays_float(text: str) -> None:
    model = f"""g (float[1,4,6,6] x) => (float[1,4,H,W] z) <float[4,4,1,1] w, float[4] f = {{1, 1, 2, 2}},
    int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float one = {{1}}>
    {{ [c] a = Conv(x, w) [op] y = {text} [d] z = Conv(y, w) }}"""
    placement = planned(qdq.model(model), "onnxq")
    assert placement.actions["op"] == "float" and why(placement)["op"] == MORE_THAN_MOVING[text]


# Types that shape inference cannot tell

CUSTOM = """<ir_version: 8, opset_import: ["": 13, "own": 1]>
g (float[1,4,6,6] x) => (y) <float[4,4,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float[4] b = {1,1,1,1}>
{ [op] t = own.Something(x) [relu] u = Relu(t) [conv] v = Conv(u, w, b) [pool] y = MaxPool<kernel_shape=[2,2]>(v) }"""


def test_types_behind_an_unknown_operator_follow_from_the_weights() -> None:
    model = from_proto(onnx.parser.parse_model(CUSTOM))
    assert not is_float(node_of(model, "conv").inputs[0])
    placement = planned(model)
    assert placement.actions["conv"] == "quantized" and set(points(placement)) == {"u", "v"}
    assert all(is_float(t) for n in model.graph.nodes for t in n.outputs)
    assert fill_types(model.graph) == 0


def test_types_are_not_guessed_where_nothing_tells() -> None:
    text = CUSTOM.replace("Conv(u, w, b)", "Identity(u)")
    model = from_proto(onnx.parser.parse_model(text))
    assert fill_types(model.graph) == 0
    mixed = """<ir_version: 8, opset_import: ["": 13, "own": 1]> g (float[4] x) => (y, z, q)
    { t = own.Something(x) y = Cast<to=1>(t) z = Shape(t) s = own.Something(z) q = Gather(s, z) }"""
    model = from_proto(onnx.parser.parse_model(mixed))
    fill_types(model.graph)
    types = {t.name: t.dtype for n in model.graph.nodes for t in n.outputs}
    assert types["t"] is None and types["s"] is None and types["q"] is None and types["y"] == np.float32
