"""Which nodes are scores and masks, and which count positions."""

from __future__ import annotations

import pytest

from onnxq.graph.element_types import fill_types
from onnxq.graph.model import Model, load
from onnxq.patterns.attention import feeds_softmax, from_integers, masked_tensors, nan_guard
from support.build import floating
from support.cases.zoo import KINDS


def names(model: Model, ids: set[int]) -> set[str]:
    return {n.name for n in model.graph.nodes if id(n) in ids}


def kind(name: str) -> Model:
    model = load(KINDS[name].model())
    fill_types(model.graph)
    return model


def test_what_feeds_a_softmax() -> None:
    model = kind("attention with padding")
    assert names(model, feeds_softmax(model.graph)) == {
        "scale", "masked", "least", "zeros", "wide", "ones",
    }  # fmt: skip
    masked = masked_tensors(model.graph)
    assert masked == {
        "s0", "s1", "s2", "deep", "zeros", "wide", "ones",
    }  # fmt: skip


def test_scores_that_are_read_elsewhere_are_data() -> None:
    text = """g (float[2,4] x, float[2,4] m) => (float[2,4] y, float[2,4] s)
    { [mask] s = Add(x, m) [scale] t = Mul(s, m) [soft] y = Softmax(t) }"""
    model = floating.model(text)
    assert names(model, feeds_softmax(model.graph)) == {"scale"}  # s is an output
    text = text.replace(", float[2,4] s)", ", float[2,4] z)").replace("[scale]", "[other] z = Relu(s) [scale]")
    assert names(floating.model(text), feeds_softmax(floating.model(text).graph)) == set()
    model = floating.model(text)
    assert names(model, feeds_softmax(model.graph)) == {"scale"}  # Relu reads it too


def test_what_counts_positions_and_masks() -> None:
    padding = kind("attention with padding")
    assert names(padding, from_integers(padding.graph)) == {"ones", "wide", "zeros", "least"}
    causal = kind("causal attention with rotary positions")
    assert names(causal, from_integers(causal.graph)) == {"float", "angle", "turn", "both", "c", "si", "mask"}


LAYERS = {
    "a layer that reads integers": ("int64[2,4] i", "x = Cast<to=1>(i) [mm] y = MatMul(x, w)", False),
    "pixels are data": ("uint8[2,4] i", "x = Cast<to=1>(i) t = Mul(x, h) [mm] y = MatMul(t, w)", False),
    "numbers times positions": ("int64[2,1] i", "x = Cast<to=1>(i) [mm] y = MatMul(x, v)", True),
    "nothing but a shape": ("float[2,N] i", "s = Shape(i) x = Cast<to=1>(s) [mm] y = MatMul(x, u)", True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_product_of_integers(name: str) -> None:
    given, nodes, counts = LAYERS[name]
    constants = "<float[4,4] w, float[1,4] v, float[2,4] u, float h = {0.5}>"
    model = floating.model(f"g ({given}) => (float[N,4] y) {constants} {{ {nodes} }}")
    fill_types(model.graph)
    found = from_integers(model.graph)
    assert ("mm" in names(model, found)) == counts
    if name == "pixels are data":
        assert found == set()


GUARDS = {
    "n = IsNaN(p) y = Where(n, zero, p)": True,
    "n = IsNaN(p) y = Where(n, p, zero)": False,
    "n = IsNaN(p) y = Where(n, x, p)": False,
    "n = IsNaN(p) y = Where(n, zero, p) z = Relu(p)": False,
    "n = IsNaN(x) y = Where(n, zero, p)": False,
    "y = Relu(p)": False,
}


@pytest.mark.parametrize("nodes", GUARDS)
def test_a_guard_against_nan(nodes: str) -> None:
    outputs = "float[2,4] y" + (", float[2,4] z" if "z =" in nodes else "")
    model = floating.model(f"g (float[2,4] x) => ({outputs}) <float zero = {{0}}> {{ [soft] p = Softmax(x) {nodes} }}")
    soft = next(n for n in model.graph.nodes if n.op == "Softmax")
    guard = nan_guard(soft.outputs[0])
    assert (guard is not None and guard[1].op == "Where") == GUARDS[nodes]
