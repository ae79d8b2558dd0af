"""Integer-only models have the costs of the models that they were lowered from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxq
from onnxq import demo
from onnxq.cost.concrete_shapes import concrete_shapes
from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.graph.model import load
from onnxq.inspection import inspect_model
from onnxq.operators import OPERATORS
from support.build import floating

CONVOLUTIONS = """g (float[N,3,9,9] x) => (y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,5] w3> {
    [c1] a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w1, b1)   [r1] ar = Relu(a)
    [c2] d = Conv<group=8, pads=[1,1,1,1]>(ar, w2, b2)   [sum] s = Add(d, ar)
    [pool] p = GlobalAveragePool(s)   [flat] f = Flatten(p)   [fc] y = Gemm(f, w3)
}"""
ATTENTION = """g (float[2,6,8] x) => (y) <float[8,8] wq, float[8,8] wk, float[8,4] wv, float[8] gamma, float[8] beta> {
    [norm] n = LayerNormalization(x, gamma, beta)
    [q] q = MatMul(n, wq)   [k] k = MatMul(n, wk)   [kt] kt = Transpose<perm=[0,2,1]>(k)
    [scores] s = MatMul(q, kt)   [soft] p = Softmax(s)   [v] v = MatMul(n, wv)   [mix] y = MatMul(p, v)
}"""


def both(text: str, shape: tuple[int, ...], **options: object) -> tuple[onnxq.graph.model.Model, ...]:
    """The Q/DQ model and the integer-only one, as read from files."""
    proto = floating.proto(text, 17, 8)
    data = [{"x": np.random.default_rng(i).standard_normal(shape).astype(np.float32)} for i in range(4)]
    how = {"profile": "onnxq", "calibration": "max", **options}
    return tuple(load(onnxq.quantize(proto, data, **how, qdq=qdq).model) for qdq in (True, False))


@pytest.mark.parametrize(
    ("text", "shape", "options"),
    [
        (CONVOLUTIONS, (1, 3, 9, 9), {}),
        (CONVOLUTIONS, (1, 3, 9, 9), {"weight_bits": 4, "first_last_bits": None}),
        (CONVOLUTIONS, (1, 3, 9, 9), {"weight_bits": 5, "activation_bits": 4, "first_last_bits": None}),
        (ATTENTION, (2, 6, 8), {}),
        (ATTENTION, (2, 6, 8), {"weight_bits": 4, "first_last_bits": None}),
    ],
)
def test_an_integer_only_model_costs_what_its_qdq_model_costs(text, shape, options):
    before, after = (inspect_model(m) for m in both(text, shape, **options))
    assert {o.op for o in after.operators} & {f"com.onnxq.{name}" for name in OPERATORS}
    assert (after.totals.macs, after.totals.bops) == (before.totals.macs, before.totals.bops)
    assert after.totals.unknown == ()
    products = [{c.name: c for c in found.layers if c.macs} for found in (before, after)]
    assert products[1].keys() == products[0].keys()
    for name, old in products[0].items():
        new = products[1][name]
        assert (new.macs, new.weight_bits, new.activation_bits, new.bops) == (
            old.macs, old.weight_bits, old.activation_bits, old.bops,
        )  # fmt: skip
        if old.weight_shape is not None:
            assert new.weight_shape is not None
            assert sorted(new.weight_shape) == sorted(old.weight_shape)
            assert new.parameters >= old.parameters  # a layer without a bias gets one of zeros


def test_weights_of_four_bits_are_counted_one_by_one_and_stored_in_halves_of_bytes():
    _, made = both(CONVOLUTIONS, (1, 3, 9, 9), weight_bits=4, first_last_bits=None)
    c1 = next(c for c in layer_costs(made.graph) if c.name == "c1")
    assert (c1.weight_bits, c1.parameters) == (4, 3 * 3 * 3 * 8 + 8)
    rescale = 4 * (8 + 8) + 8  # multipliers and shifts of a sum in 16 bits; zero points of the weights
    assert c1.size == 3 * 3 * 3 * 8 // 2 + 4 * 8 + rescale


def test_totals_count_constants_once_and_leave_out_the_rescale():
    _, made = both(CONVOLUTIONS, (1, 3, 9, 9))
    costs = layer_costs(made.graph, concrete_shapes(made.graph))
    assert totals(made.graph, costs).parameters == sum(c.parameters for c in costs)


def test_feature_maps_of_integer_operators_are_compared_with_float():
    before, after = (inspect_model(m) for m in both(CONVOLUTIONS, (1, 3, 9, 9)))
    assert after.feature_maps.largest[0] == before.feature_maps.largest[0]
    assert after.feature_maps.peak[0] >= 3 * after.feature_maps.peak[1]


def test_the_card_of_an_integer_only_model_has_the_bytes_of_its_own_constants():
    made = onnxq.quantize(demo.model_path(), demo.calibration_data(), profile="onnxq", limit=8)
    found = inspect_model(load(made.model))
    assert made.card.cost.constant_bytes.after == found.totals.size
    assert {r.name: r.size.after for r in made.card.layers} == {c.name: c.size for c in found.layers}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_every_parameter_is_an_input(name):
    spec = OPERATORS[name]
    assert [spec.schema.inputs[i].name for i in spec.parameter_indices] == list(spec.parameters)
    assert ("w" in [i.name for i in spec.schema.inputs]) == ("w" in spec.parameters)


@pytest.mark.parametrize("bits", [4, 8, 2])
def test_weights_packed_into_bytes_by_onnxruntime_count_by_their_real_shape(bits):
    outputs, inputs, block = 24, 64, 32
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[N,5,{inputs}] x) => (float[N,5,{outputs}] y) {{
            [fc] y = com.microsoft.MatMulNBits<K={inputs}, N={outputs}, bits={bits}, block_size={block}>(x, b, s)
        }}"""
    )
    codes = rng.integers(0, 256, (outputs, inputs // block, block * bits // 8), np.uint8)
    scales = rng.random((outputs, inputs // block)).astype(np.float32)
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in (("b", codes), ("s", scales)))
    model = load(proto)
    (cost,) = layer_costs(model.graph)
    assert (cost.weight_shape, cost.weight_bits, cost.activation_bits) == ((outputs, inputs), bits, 32)
    assert cost.parameters == outputs * inputs == totals(model.graph, [cost]).parameters
    assert cost.macs == 5 * outputs * inputs
    assert cost.size == codes.nbytes + scales.nbytes
