"""Sums, products, activations and tables in integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.build import Qdq, uniform
from support.prove.lowering import Lowered, check, lower
from support.runs import run

RNG = np.random.default_rng(5)
SHAPE = "float[2,6,5,4]"


def two(a_scale: float = 0.0117, b_scale: float = 0.0091, other: str = SHAPE) -> Qdq:
    return Qdq(f"{SHAPE} a, {other} b", f"{SHAPE} r").q("a", a_scale, 120).q("b", b_scale, -3, np.int8)


def one(outputs: str = f"{SHAPE} r", scale: float = 0.0117, zero_point: int = 120, inputs: str = f"{SHAPE} x") -> Qdq:
    return Qdq(inputs, outputs).q("x", scale, zero_point)


def end(made: Qdq, scale: float = 0.0213, zero_point: int = 128) -> Qdq:
    return made.q("y", scale, zero_point).node("r = Identity(y_d)")


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def constant(lowered: Lowered, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in lowered.proto.graph.initializer if t.name == name))


SUMS = {
    "add": ("y = Add(a_d, b_d)", {"onnxq.Add": 1}),
    "sub": ("y = Sub(a_d, b_d)", {"onnxq.Sub": 1}),
    "sum of two": ("y = Sum(a_d, b_d)", {"onnxq.Add": 1}),
    "sum of four": ("y = Sum(a_d, b_d, a_d, b_d)", {"onnxq.Add": 3}),
    "twice the same": ("y = Add(a_d, a_d)", {"onnxq.Add": 1}),
    "with relu": ("s = Add(a_d, b_d) y = Relu(s)", {"onnxq.Add": 1}),
    "scaled": ("s = Add(a_d, b_d) k = Constant<value_float=0.7>() y = Mul(s, k)", {"onnxq.Add": 1}),
    "three in a row": ("s = Add(a_d, b_d) t = Add(s, a_d) y = Sub(t, b_d)", {"onnxq.Add": 2, "onnxq.Sub": 1}),
    "product": ("y = Mul(a_d, b_d)", {"onnxq.Mul": 1}),
}


@pytest.mark.parametrize("name", SUMS)
def test_two_activations(name: str) -> None:
    text, ops = SUMS[name]
    lowered = check(end(two().node(text)))
    assert {k: v for k, v in lowered.ops.items() if k.startswith("onnxq")} == ops
    assert not lowered.reasons


@pytest.mark.parametrize("other", ["float[6,1,1]", "float[4]", "float[1]", "float[2,1,5,1]"])
def test_broadcasting(other: str) -> None:
    for op in ("Add", "Sub", "Mul"):
        assert check(end(two(other=other).node(f"y = {op}(a_d, b_d)"))).ops[f"onnxq.{op}"] == 1


def test_the_range_of_a_sum_holds_a_clip() -> None:
    made = two().node("s = Add(a_d, b_d) lo = Constant<value_float=-0.5>() hi = Constant<value_float=1.0>()")
    lowered = check(end(made.node("y = Clip(s, lo, hi)")))
    assert (attributes(lowered.node("onnxq.Add"))["qmin"], attributes(lowered.node("onnxq.Add"))["qmax"]) == (105, 175)


CONSTANTS = {
    "float, one number": (lambda m: m.const("k", 0.31).node("y = Add(x_d, k)"), {"onnxq.Add": 1}),
    "float, a channel": (lambda m: m.const("k", RNG.normal(size=(6, 1, 1))).node("y = Sub(k, x_d)"), {"onnxq.Sub": 1}),
    "codes": (lambda m: m.weight("k", [[[9]], [[-80]], [[5]], [[0]], [[1]], [[99]]], 0.013).node("y = Add(x_d, k_d)"),
              {"onnxq.Add": 1}),
    "factor": (lambda m: m.const("k", 1.7).node("y = Mul(x_d, k)"), {"onnxq.Requantize": 1}),
    "divisor": (lambda m: m.const("k", 1.7).node("y = Div(x_d, k)"), {"onnxq.Requantize": 1}),
    "factor behind DequantizeLinear": (lambda m: m.weight("k", 100, 0.013).node("y = Mul(k_d, x_d)"),
                                       {"onnxq.Requantize": 1}),
    "factors of channels": (lambda m: m.const("k", RNG.uniform(0.2, 1.5, (6, 1, 1))).node("y = Mul(x_d, k)"),
                            {"onnxq.Requantize": 1}),
    "factors of both signs": (lambda m: m.const("k", RNG.normal(size=(1, 6, 1, 1))).node("y = Mul(x_d, k)"),
                              {"onnxq.Sub": 1}),
    "factors everywhere, codes": (lambda m: m.weight("k", RNG.integers(-99, 99, (6, 5, 4)), 0.013)
                                  .node("y = Mul(x_d, k_d)"), {"onnxq.Mul": 1}),
    "factor and addend a channel": (
        lambda m: m.const("k", RNG.uniform(0.2, 1.5, (6, 1, 1))).const("l", RNG.normal(size=(6, 1, 1)))
        .node("p = Mul(x_d, k) y = Add(p, l)"), {"onnxq.Add": 1}),
    "batch normalization": (
        lambda m: m.const("g", RNG.uniform(0.5, 1.5, 6)).const("b", RNG.normal(size=6)).const("m", RNG.normal(size=6))
        .const("v", RNG.uniform(0.5, 1.5, 6)).node("y = BatchNormalization(x_d, g, b, m, v)"), {"onnxq.Add": 1}),
    "batch normalization that turns round": (
        lambda m: m.const("g", RNG.normal(size=6)).const("b", RNG.normal(size=6)).const("m", RNG.normal(size=6))
        .const("v", RNG.uniform(0.5, 1.5, 6)).node("y = BatchNormalization(x_d, g, b, m, v)"),
        {"onnxq.Sub": 1, "onnxq.Add": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant_operands(name: str) -> None:
    build, ops = CONSTANTS[name]
    lowered = check(end(build(one())))
    assert {k: v for k, v in lowered.ops.items() if k.startswith("onnxq")} == ops


def test_a_float_constant_has_an_exact_multiplier() -> None:
    lowered = check(end(one().const("k", RNG.normal(size=(6, 1, 1))).node("y = Add(x_d, k)")))
    multiplier = int(constant(lowered, lowered.node("onnxq.Add").input[3]).item())
    assert multiplier & (multiplier - 1) == 0


REFUSED = {
    "its constant factor is not quantized, not positive, or varies along more than one axis": one().const(
        "k", RNG.normal(size=(6, 5, 1))
    ).node("[op] y = Mul(x_d, k)"),
    "it divides by an activation": two().node("[op] y = Div(a_d, b_d)"),
    "a constant input contains NaN or infinity": one().const("k", [1.0, np.inf, 0.5, 0.0]).node(
        "[op] y = Add(x_d, k)"
    ),
    "its bounds are computed at run time or NaN": Qdq(f"{SHAPE} x, float low", f"{SHAPE} r").q("x", 0.01).node(
        "[op] y = Clip(x_d, low)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_why_an_operator_stays_float(reason: str) -> None:
    assert lower(end(REFUSED[reason]).proto()).reasons["op"] == reason


ACTIVATIONS = [
    "Sigmoid(x_d)", "Tanh(x_d)", "HardSigmoid(x_d)", "HardSwish(x_d)", "Gelu(x_d)", 'Gelu<approximate="tanh">(x_d)',
    "LeakyRelu<alpha=0.17>(x_d)", "Elu(x_d)", "Selu(x_d)", "Celu<alpha=1.3>(x_d)", "Softplus(x_d)", "Softsign(x_d)",
    "Mish(x_d)", "Erf(x_d)", "Exp(x_d)", "Abs(x_d)", "Neg(x_d)", "ThresholdedRelu<alpha=0.2>(x_d)",
]  # fmt: skip


@pytest.mark.parametrize("text", ACTIVATIONS)
@pytest.mark.parametrize("signed", [False, True])
def test_tables_are_exact(text: str, signed: bool) -> None:
    made = Qdq(f"{SHAPE} x", f"{SHAPE} r").q("x", 0.0317, -8 if signed else 120, np.int8 if signed else np.uint8)
    lowered = check(end(made.node(f"y = {text}")), share=0.0, low=-5.0, high=5.0)
    assert lowered.ops["onnxq.LookupTable"] == 1 and not lowered.reasons


COMPOSED = {
    "SiLU": "s = Sigmoid(x_d) y = Mul(x_d, s)",
    "GELU in pieces": "k = Constant<value_float=1.4142135>() h = Constant<value_float=0.5>() "
    "o = Constant<value_float=1.0>() d = Div(x_d, k) e = Erf(d) p = Add(e, o) q = Mul(x_d, p) y = Mul(q, h)",
    "HardSwish in pieces": "h = Constant<value_float=3.0>() z = Constant<value_float=0.0>() "
    "s = Constant<value_float=6.0>() a = Add(x_d, h) c = Clip(a, z, s) m = Mul(x_d, c) y = Div(m, s)",
    "square": "e = Constant<value_float=2.0>() y = Pow(x_d, e)",
    "behind an activation": "s = Tanh(x_d) y = Relu(s)",
}


@pytest.mark.parametrize("name", COMPOSED)
def test_functions_of_one_value_in_pieces_are_one_table(name: str) -> None:
    made = Qdq(f"{SHAPE} x", f"{SHAPE} r").q("x", 0.0317, 120).node(COMPOSED[name])
    lowered = check(end(made), low=-5.0, high=5.0)
    assert {k for k in lowered.ops if k.startswith("onnxq")} == {"onnxq.LookupTable"}


def test_a_quantizer_in_between_keeps_its_point() -> None:
    made = Qdq(f"{SHAPE} x", f"{SHAPE} r").q("x", 0.0317, 120).node("s = Sigmoid(x_d)").q("s", 1 / 255, 0)
    lowered = check(end(made.node("y = Mul(x_d, s_d)")))
    assert lowered.ops["onnxq.LookupTable"] == 1 and lowered.ops["onnxq.Mul"] == 1


def test_a_table_needs_8_bits_on_both_sides() -> None:
    wide = one(outputs=f"{SHAPE} y").node("[act] y = Sigmoid(x_d)")
    assert lower(wide.proto()).reasons["act"].startswith("no QuantizeLinear follows it")
    behind = two().node("s = Add(a_d, b_d) [act] y = Sigmoid(s)")
    assert "no QuantizeLinear precedes it" in lower(end(behind).proto()).reasons["act"]


LEAKY = {
    "behind a sum": "s = Add(a_d, b_d) y = LeakyRelu<alpha=0.21>(s)",
    "a slope for each channel": "y = PRelu(a_d, slope)",
    "slopes of both signs, wide": "s = Sub(a_d, b_d) y = PRelu(s, slopes)",
}


@pytest.mark.parametrize("name", LEAKY)
def test_leaky_activations_where_no_table_does(name: str) -> None:
    made = two().const("slope", RNG.uniform(0.1, 0.9, (6, 1, 1))).const("slopes", RNG.normal(0, 0.3, (6, 1, 1)))
    lowered = check(end(made.node(LEAKY[name])))
    assert not lowered.reasons


REQUANTIZED = {
    "another scale": ("", 0.0213, {"onnxq.Requantize": 1}),
    "the same": ("", 0.0117, {"Identity": 2}),
    "relu, the same scale": ("y0 = Relu(x_d)", 0.0117, {"onnxq.Requantize": 1}),
    "clip, another scale": ("k = Constant<value_float=0.6>() y0 = Clip(x_d, , k)", 0.0213, {"onnxq.Requantize": 1}),
}


@pytest.mark.parametrize("name", REQUANTIZED)
def test_from_codes_to_codes(name: str) -> None:
    text, scale, ops = REQUANTIZED[name]
    made = one().node(text or "y0 = Identity(x_d)").q("y0", scale, 120).node("r = Identity(y0_d)")
    lowered = check(made)
    assert {k: v for k, v in lowered.ops.items() if k in ops} == ops or lowered.ops.get("Identity", 0) >= 1


def test_two_quantizers_of_different_scales_behind_one_tensor() -> None:
    made = Qdq(f"{SHAPE} a, {SHAPE} b", f"{SHAPE} r, {SHAPE} t").q("a", 0.0117).q("b", 0.0091)
    made.node("s = Add(a_d, b_d)").q("s", 0.0213, label="fine").q("s", 0.047, 100, label="coarse")
    lowered = check(made.node("r = Identity(fine_d) t = Identity(coarse_d)"))
    assert lowered.ops["onnxq.Add"] == 1 and lowered.ops["onnxq.Requantize"] == 2
    assert attributes(lowered.node("onnxq.Add"))["y_type"] == 6


def test_few_bits_saturate_at_their_grid() -> None:
    """A Clip to the grid of 4 bits before an 8-bit QuantizeLinear."""
    made = two().const("lo", -0.8).const("hi", 0.7).node("s = Add(a_d, b_d) y = Clip(s, lo, hi)")
    lowered = check(end(made, 0.1, 8))
    assert (attributes(lowered.node("onnxq.Add"))["qmin"], attributes(lowered.node("onnxq.Add"))["qmax"]) == (0, 15)


WIDENING = {
    "a product": ("y = Mul(x_d, k)", [2, 3, 1], [1, 4]),
    "a quotient": ("y = Div(x_d, k)", [2, 3, 1], [4]),
    "a function": ("s = Sigmoid(x_d) y = Mul(s, k)", [2, 3, 1], [1, 1, 4]),
    "a sum": ("y = Add(x_d, k)", [2, 3, 1], [4]),
    "a new dimension": ("y = Mul(x_d, k)", [3, 1], [2, 1, 1]),
}


@pytest.mark.parametrize("name", WIDENING)
def test_a_constant_that_gives_the_result_another_shape(name: str) -> None:
    """Group normalization as TensorFlow's converter writes it: one number, [1, 1, 1, C]."""
    nodes, shape, constant = WIDENING[name]
    text = ",".join(map(str, shape))
    made = Qdq(f"float[{text}] x", "float[A,B,C] r").q("x", 0.0117, 120).const("k", np.full(constant, 0.5)).node(nodes)
    lowered = check(made.q("y", 0.0213).node("r = Identity(y_d)"))
    (feed,) = uniform(lowered.qdq, 1)
    assert run(lowered.proto, feed)["r"].shape == run(lowered.qdq, feed)["r"].shape
