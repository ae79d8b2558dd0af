"""Normalizations spelled out: every way of writing them, and what only looks like one."""

from __future__ import annotations

import pytest

from onnxq.graph.model import Model
from onnxq.patterns.normalization import find_norms
from support.build import floating

CONSTANTS = """<float[8] gain, float[8] shift, float two = {2}, float one = {1}, float eps = {0.00001},
    int64[1] last = {-1}, float[4,8] wide>"""
MEAN = "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) "
POWER, PRODUCT = "q = Pow(d, two) ", "q = Mul(d, d) "
VARIANCE = "v = ReduceMean<axes=[-1]>(q) e = Add(v, eps) s = Sqrt(e) "
WAYS = {
    "as PyTorch writes it": MEAN + POWER + VARIANCE + "n = Div(d, s) g = Mul(n, gain) y = Add(g, shift)",
    "the factor first": MEAN + PRODUCT + VARIANCE + "n = Div(d, s) g = Mul(gain, n) y = Add(shift, g)",
    "x - mean twice": "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) d2 = Sub(x, m) "
    + POWER
    + VARIANCE
    + "n = Div(d2, s) g = Mul(n, gain) y = Add(g, shift)",
    "by the reciprocal": MEAN + POWER + VARIANCE + "r = Reciprocal(s) n = Mul(d, r) y = Mul(n, gain)",
    "nothing behind it": MEAN + POWER + VARIANCE + "y = Div(d, s)",
    "only a sum behind it": MEAN + POWER + VARIANCE + "n = Div(d, s) y = Add(n, shift)",
    "eps first": MEAN + POWER + VARIANCE.replace("Add(v, eps)", "Add(eps, v)") + "y = Div(d, s)",
}
TERMS = MEAN + POWER + VARIANCE + "r = Reciprocal(s) "
WAYS |= {
    "as Keras 3 writes it": TERMS
    + "a = Mul(r, gain) p = Mul(x, a) o = Neg(m) t = Mul(o, a) u = Add(t, shift) y = Add(p, u)",
    "Keras without beta": TERMS + "a = Mul(r, gain) p = Mul(x, a) o = Neg(m) t = Mul(o, a) y = Add(p, t)",
    "as Keras 2 writes it": TERMS + "a = Mul(r, gain) p = Mul(x, a) t = Mul(m, a) u = Sub(shift, t) y = Add(p, u)",
    "Keras 2 without beta": TERMS + "a = Mul(r, gain) p = Mul(x, a) t = Mul(m, a) y = Sub(p, t)",
    "Keras without gamma": TERMS + "p = Mul(x, r) t = Mul(m, r) u = Sub(shift, t) y = Add(p, u)",
}
RMS = {
    "as LLaMA writes it": "q = Pow(x, two) " + VARIANCE + "r = Div(one, s) n = Mul(x, r) y = Mul(gain, n)",
    "by the reciprocal": "q = Mul(x, x) " + VARIANCE + "r = Reciprocal(s) n = Mul(r, x) y = Mul(n, gain)",
    "by the root": "q = Pow(x, two) " + VARIANCE + "n = Div(x, s) y = Mul(n, gain)",
}
OTHERS = {
    "another axis": WAYS["as PyTorch writes it"].replace("axes=[-1]>(q)", "axes=[1]>(q)"),
    "another power": MEAN + "q = Pow(d, one) " + VARIANCE + "y = Div(d, s)",
    "the mean is dropped": MEAN + POWER + VARIANCE.replace("axes=[-1]", "axes=[-1], keepdims=0") + "y = Div(d, s)",
    "divides something else": MEAN + POWER + VARIANCE + "y = Div(x, s)",
    "its deviation is read": MEAN + POWER + VARIANCE + "n = Div(d, s) y = Mul(n, s)",
    "the mean is added": TERMS + "a = Mul(r, gain) p = Mul(x, a) t = Mul(m, a) y = Add(p, t)",
    "the terms the other way round": TERMS + "a = Mul(r, gain) p = Mul(x, a) t = Mul(m, a) y = Sub(t, p)",
    "beta minus minus the mean": TERMS
    + "a = Mul(r, gain) p = Mul(x, a) o = Neg(m) t = Mul(o, a) u = Sub(shift, t) y = Add(p, u)",
    "no epsilon": MEAN + POWER + "v = ReduceMean<axes=[-1]>(q) s = Sqrt(v) y = Div(d, s)",
}


def spelled(nodes: str, opset: int = 13) -> Model:
    return floating.model(f"g (float[2,4,8] x) => (float[2,4,8] y) {CONSTANTS} {{ {nodes} }}", opset)


@pytest.mark.parametrize("name", [*WAYS, *(f"RMS {n}" for n in RMS)])
def test_is_found_whichever_way_it_is_written(name: str) -> None:
    centred = name in WAYS
    nodes = WAYS[name] if centred else RMS[name.removeprefix("RMS ")]
    model = spelled(nodes)
    (norm,) = find_norms(model.graph)
    assert {id(n) for n in norm.nodes} == {id(n) for n in model.graph.nodes}
    assert norm.root.outputs[0].name == "y" and norm.x.name == "x" and norm.center == centred
    assert norm.epsilon == pytest.approx(1e-5)
    assert (norm.gamma is not None, norm.beta is not None) == ("gain" in nodes, "shift" in nodes)
    readers = {(id(n), i) for n in model.graph.nodes for i, t in enumerate(n.inputs) if t.name == "x"}
    assert {(id(n), i) for n, i in norm.reads} == readers


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_one(name: str) -> None:
    assert find_norms(spelled(OTHERS[name]).graph) == []


def test_axes_as_an_input_and_counted_from_the_front() -> None:
    nodes = RMS["by the root"].replace("ReduceMean<axes=[-1]>(q)", "ReduceMean(q, last)")
    assert len(find_norms(spelled(nodes, 18).graph)) == 1
    assert len(find_norms(spelled(RMS["by the root"].replace("axes=[-1]", "axes=[2]")).graph)) == 1


def test_means_that_a_converter_made_pools() -> None:
    nodes = WAYS["as Keras 3 writes it"].replace("ReduceMean<axes=[-1]>", "GlobalAveragePool")
    (norm,) = find_norms(spelled(nodes).graph)
    assert len(norm.nodes) == len(spelled(nodes).graph.nodes)


def test_what_is_behind_it_stays_outside() -> None:
    nodes = WAYS["as PyTorch writes it"].replace("y = Add(g, shift)", "b = Add(g, shift) y = Mul(b, gain)")
    (norm,) = find_norms(spelled(nodes).graph)
    assert norm.root.outputs[0].name == "b"
    nodes = RMS["by the root"].replace("y = Mul(n, gain)", "y = Mul(n, wide)")  # a factor for each row too
    (norm,) = find_norms(spelled(nodes).graph)
    assert norm.root.outputs[0].name == "n" and norm.gamma is None


def test_an_inner_tensor_that_is_an_output() -> None:
    text = f"g (float[2,8] x) => (float[2,8] y, float[2,8] d) {CONSTANTS} {{ {WAYS['nothing behind it']} }}"
    assert find_norms(floating.model(text, 13).graph) == []
