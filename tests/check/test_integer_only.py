"""Layers that compute in float on dequantized weights are float, wherever they stand and whoever is asked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.card.render.text import summary
from onnxq.check.integer_only import check_integer
from onnxq.check.target import check
from onnxq.errors import ModelError
from onnxq.graph.model import load
from onnxq.inspection import inspect_model
from support.build import Qdq, floating

RNG = np.random.default_rng(0)


def codes(*shape: int) -> np.ndarray:
    return RNG.integers(-127, 128, shape)


def layer(made: Qdq, name: str, source: str, result: str, text: str) -> Qdq:
    """A layer with a weight `{name}_w` of its own; text: with {x}, {w} and {y}."""
    return made.node(f"[{name}] " + text.format(x=source, w=f"{name}_w_d", y=result))


# What lowers none of them: a negative alpha, three spatial axes, weights on both sides in float.
KINDS = {
    "Gemm": ("2,4", (4, 4), "{y} = Gemm<alpha=-1.5>({x}, {w})"),
    "Gemm of transposed weights": ("2,4", (4, 4), "{w}_t = Transpose({w}) {y} = Gemm<alpha=-1.5>({x}, {w}_t)"),
    "Conv": ("2,4,3,3,3", (4, 4, 1, 1, 1), "{y} = Conv({x}, {w})"),
    "ConvTranspose": ("2,4,3,3,3", (4, 4, 1, 1, 1), "{y} = ConvTranspose({x}, {w})"),
    "Einsum": ("2,4", (4, 4), '{y} = Einsum<equation="ab,bc->ac">({x}, {w})'),
}


@pytest.mark.parametrize("place", ["first", "middle", "last", "only its weight is quantized"])
@pytest.mark.parametrize("kind", KINDS)
def test_wherever_they_are(kind: str, place: str) -> None:
    shape, weight, text = KINDS[kind]
    made = Qdq(f"float[{shape}] x", f"float[{shape}] y").weight("odd_w", codes(*weight), 0.0131)
    if place == "first":
        layer(made, "odd", "x", "a", text).q("a", 0.1).node("b = Relu(a_d)").q("b", 0.1).node("y = Identity(b_d)")
    elif place == "middle":
        made.q("x", 0.0117).node("r = Relu(x_d)").q("r", 0.0117)
        layer(made, "odd", "r_d", "a", text).q("a", 0.1).node("b = Relu(a_d)").q("b", 0.1).node("y = Identity(b_d)")
    elif place == "last":
        layer(made.q("x", 0.0117).node("r = Relu(x_d)").q("r", 0.0117), "odd", "r_d", "y", text)
    else:
        made.q("x", 0.0117).node("r = Relu(x_d)").q("r", 0.0117).node("s = Sin(r_d)")
        layer(made, "odd", "s", "y", text)
    lowered = onnxq.lower(made.proto(), proof="none")
    (op,) = {n.op_type for n in made.proto().graph.node if n.op_type == kind.split(maxsplit=1)[0]}
    assert [f.op for f in lowered.inside()].count(op) == 1
    assert all(f.reason for f in lowered.inside())
    assert {f.node for f in check_integer(lowered.model)} >= {f.node for f in lowered.inside() if f.op == op}
    found = inspect_model(load(lowered.model))
    (cost,) = [c for c in found.layers if c.op == op]
    assert (cost.weight_bits, cost.activation_bits) == (8, 32)
    assert cost.bops == 32 * 32 * (cost.macs or 0)
    assert [(u.integer, u.in_float) for u in found.operators if u.op == op] == [(0, 1)]


def test_a_product_of_two_dequantized_activations_is_one_too() -> None:
    made = Qdq("float[2,4] x, float[4,3] z", "float[2,3] y").q("x", 0.0117).q("z", 0.0117).node("r = Relu(x_d)")
    made.q("r", 0.0117).node("[odd] y = Gemm<alpha=-1.0>(r_d, z_d)")
    assert [f.node for f in onnxq.lower(made.proto(), proof="none").inside()] == ["odd"]


def test_so_is_one_in_a_body() -> None:
    made = Qdq("float[2,4] x, bool flag", "float[2,4] y").q("x", 0.0117).weight("w", codes(4, 4), 0.0131)
    made.node("r = Relu(x_d)").q("r", 0.0117).node(
        "[choice] y = If (flag) <then_branch = a () => (float[2,4] t) { t = MatMul(r_d, w_d) }, "
        "else_branch = b () => (float[2,4] e) { e = Neg(r_d) }>"
    )
    assert [f.node for f in onnxq.lower(made.proto(), proof="none").inside()] == ["choice"]


def test_a_float_layer_behind_the_integers_is_outside() -> None:
    made = Qdq("float[2,4] x", "float[2,3] y").q("x", 0.0117).node("r = Relu(x_d)").q("r", 0.0117)
    proto = made.const("w", RNG.normal(size=(4, 3))).node("y = Gemm(r_d, w)").proto()
    assert onnxq.lower(proto, proof="none").inside() == []


NET = """g (float[n,6] x) => (float[n,3] y) <float[5,6] w, float[5] c, float[3,5] w2, float[3] c2> {
    [first] g1 = Gemm<transB=1>(x, w, c) r = Relu(g1) [last] y = Gemm<alpha=ALPHA, transB=1>(r, w2, c2) }"""


def quantized(alpha: str, profile: str = "onnxq") -> onnxq.Quantized:
    feeds = [{"x": RNG.normal(size=(8, 6)).astype(np.float32)} for _ in range(4)]
    model: onnx.ModelProto = floating.proto(NET.replace("ALPHA", alpha))
    return onnxq.quantize(model, feeds, profile=profile, proof="none")


def test_the_card_counts_it_as_float() -> None:
    card, whole = quantized("-1.5").card, quantized("1.5").card
    assert "1 of 2 layers in integers" in summary(card) and "2 of 2 layers in integers" in summary(whole)
    assert "no float operator between them" not in summary(card)
    assert "no float operator between them" in summary(whole)
    last = next(r for r in card.layers if r.name == "last")
    assert (last.action, last.weight_bits, last.activation_bits) == ("float", 8, 32)
    assert "alpha is -1.5" in last.reason and last.bops == 32 * 32 * (last.macs or 0)
    assert card.cost.bops.after == sum(r.bops or 0 for r in card.layers) > whole.cost.bops.after
    assert [n.name for n in card.float_nodes] == ["last"]
    gemm = next(c for c in card.operations.by_op if c.op == "Gemm")
    assert (gemm.total, gemm.quantized, gemm.left_float) == (2, 1, 1)


def test_in_a_qdq_model_the_target_computes_it() -> None:
    made = quantized("-1.5", "tensorrt")
    assert "2 of 2 layers in integers" in summary(made.card)
    assert {c.activation_bits for c in inspect_model(load(made.model)).layers} == {8}


def test_what_is_lowered_is_made_again_from_its_float_model() -> None:
    model = floating.proto("g (float[1,4] x) => (y) <float[4,4] w, float[4,3] v> { a = MatMul(x, w) y = MatMul(a, v) }")
    made = onnxq.quantize(model, random_data=2, profile="onnxq", proof="none").model
    findings = check(made, "openvino")
    assert findings and not any("--requantize" in f.fix for f in findings)
    assert any("from the float model: onnxq quantize --profile openvino" in f.fix for f in findings)
    for requantize in (False, True):
        with pytest.raises(ModelError, match=r"already lowered to integers .* quantize the float or QDQ model"):
            onnxq.quantize(made, random_data=2, requantize=requantize)
