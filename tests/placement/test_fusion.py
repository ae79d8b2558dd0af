"""What runs inside the layer upstream: biases of MatMuls, activations, guards against NaN."""

import pytest

from support.build import qdq
from support.placements import CONV, planned, points
from support.prove.nodes import node_of

FC = """g (float[1,5,4] x) => (float[1,5,4] y)
<float[4,4] w, float[4] b, float[1,1,4] c, float[1] one, float[5,1] column>
{ [mm] m = MatMul(x, w) BODY }"""


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        ("[add] y = Add(m, b)", True),
        ("[add] y = Add(c, m)", True),
        ("[add] n = Add(m, b) [r] y = Relu(n)", True),
        ("[add] y = Add(m, one)", False),  # not one a channel
        ("[add] y = Add(m, column)", False),
        ("[add] y = Sub(m, b)", False),
        ("[add] n = Add(m, b) [s] y = Mul(n, m)", False),  # the product is read elsewhere too
    ],
)
def test_an_added_constant_is_the_bias_of_a_matmul(body: str, fused: bool) -> None:
    model = qdq.model(FC.replace("BODY", body))
    placement = planned(model, "onnxq")
    assert (placement.actions["add"] == "fused") == fused
    (layer,) = placement.layers
    assert (layer.bias is not None) == fused and ("m" in points(placement)) == (not fused)
    if fused:
        assert layer.bias_reader == (node_of(model, "add"), 1 if "Add(m" in body else 0)
        assert "r" not in placement.actions or placement.actions["r"] == "fused"
    # Elsewhere the addition is an operator of its own.
    assert planned(qdq.model(FC.replace("BODY", body)), "qnn").actions["add"] == "quantized"


def test_a_matmul_with_bias_is_a_residual_layer() -> None:
    model = qdq.model(FC.replace("BODY", "[add] n = Add(m, b) [residual] y = Add(x, n)"))
    placement = planned(model, "onnxq")
    assert points(placement) == {"x": [("mm", 0), ("residual", 0)], "y": []}


def test_a_bias_that_the_user_excludes_stays_an_addition_in_float() -> None:
    model = qdq.model(FC.replace("BODY", "[add] y = Add(m, b)"))
    placement = planned(model, "onnxq", exclude=("add",))
    assert placement.actions["add"] == "float" and placement.layers[0].bias is None


@pytest.mark.parametrize(
    ("tail", "fused"),
    [
        ("[r] y = Relu(t)", True),
        ("[r] y = Clip(t, lo, hi)", True),
        ("[r] y = Clip(t, lo)", True),
        ("[r] y = Clip(t, m)", False),  # bounds computed at run time
        ("[r] y = Tanh(t)", False),
        ("[r] u = Relu(t) [s] y = Add(t, u)", False),  # the layer's output is read elsewhere too
    ],
)
def test_what_is_fused(tail: str, fused: bool) -> None:
    model = qdq.model(
        f"""g {CONV} <float[4,4,1,1] w, float lo = {{0.0}}, float hi = {{6.0}}>
        {{ m = ReduceMin<keepdims=0>(x) [c] t = Conv(x, w) {tail} }}"""
    )
    placement = planned(model)
    assert (placement.actions["r"] == "fused") == fused
    assert ("t" in points(placement)) != fused


def test_no_fusion_where_the_layer_is_a_graph_output() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] t, float[1,4,6,6] y) <float[4,4,1,1] w>
        { [c] t = Conv(x, w) [r] y = Relu(t) }"""
    )
    placement = planned(model)
    assert placement.actions["r"] == "float" and "t" in points(placement) and "y" not in points(placement)


def test_an_activation_inside_a_body_is_not_fused_with_a_layer_outside() -> None:
    text = """g (float[1,4,6,6] x, bool b) => (float[1,4,6,6] y) <float[4,4,1,1] w>
    { [conv] t = Conv(x, w) y = If(b) <then_branch = th () => (float[1,4,6,6] o) { [inner] o = Relu(t) },
      else_branch = el () => (float[1,4,6,6] p) { p = Identity(x) }> }"""
    placement = planned(qdq.model(text))
    assert set(points(placement)) == {"x", "t"} and placement.actions["inner"] == "float"


def test_a_relu_behind_a_product_runs_inside_it() -> None:
    text = f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [m] u = Mul(t, x) [r] y = Relu(u) }}"
    placement = planned(qdq.model(text), "onnxq")
    assert placement.actions["r"] == "fused" and "u" not in points(placement)
    assert next(p for p in placement.points if p.tensor.name == "y").nonnegative
