"""MACs, parameters, bytes and widths of layers, against runs of the model and figures worked out by hand."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.cost.concrete_shapes import concrete_shapes, format_shape
from onnxq.cost.layer_costs import bit_operations, layer_costs, stored_bytes, tensor_bits, totals
from onnxq.errors import ConfigError
from onnxq.graph import marks
from onnxq.graph.model import Model, load, to_proto
from support.build import copy_of, qdq
from support.insertion import context, insert

LIGHT = "backend/test/data/light/light_{}.onnx"


def ones(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model from text whose constants (declared after the signature) are all one."""
    parsed = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]>\n{text}')
    for info in parsed.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        parsed.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), info.name))
    del parsed.graph.value_info[:]
    return parsed


def counted_by_running(proto: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    """With ones everywhere and no padding each multiply-accumulate adds 1 to the sum of the outputs."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return round(float(session.run(None, {session.get_inputs()[0].name: np.ones(shape, np.float32)})[0].sum()))


def costs(source: Model | onnx.ModelProto, **shapes: tuple[int, ...]) -> dict:
    return {c.name: c for c in layer_costs(load(source).graph, shapes)}


def dims(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
@settings(max_examples=20)
def test_convolution_macs_are_those_that_are_executed(groups, c_in, c_out, kernel, stride, batch):
    shape = (batch, groups * c_in, 9, 7)
    weight = (groups * c_out, c_in, kernel, kernel)
    proto = ones(
        f"g (float[{dims(shape)}] x) => (y) <float[{dims(weight)}] w> {{"
        f"[c] y = Conv<group={groups}, strides=[{stride},{stride}]>(x, w) }}"
    )
    assert costs(proto)["c"].macs == counted_by_running(proto, shape)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=15)
def test_transposed_convolution_macs_are_those_that_are_executed(groups, c_in, c_out, kernel, stride):
    shape = (2, groups * c_in, 4, 5)
    weight = (groups * c_in, c_out, kernel, kernel)
    proto = ones(
        f"g (float[{dims(shape)}] x) => (y) <float[{dims(weight)}] w> {{"
        f"[c] y = ConvTranspose<group={groups}, strides=[{stride},{stride}]>(x, w) }}"
    )
    assert costs(proto)["c"].macs == counted_by_running(proto, shape)


@pytest.mark.parametrize(
    ("operator", "shape", "weight"),
    [
        ("Gemm(x, w)", (3, 4), (4, 5)),
        ("Gemm<transA=1>(x, w)", (4, 3), (4, 5)),
        ("Gemm<transB=1>(x, w)", (3, 4), (5, 4)),
        ("MatMul(x, w)", (2, 3, 4), (4, 5)),
        ("MatMul(x, w)", (3, 4), (2, 4, 5)),
        ("MatMul(x, w)", (3, 4), (4,)),
        ("MatMul(w, x)", (4, 5), (3, 4)),
        ('Einsum<equation="bij,jk->bik">(x, w)', (2, 3, 4), (4, 5)),
        ('Einsum<equation="ij , jk">(x, w)', (3, 4), (4, 5)),
    ],
)
def test_product_macs_are_those_that_are_executed(operator, shape, weight):
    proto = ones(f"g (float[{dims(shape)}] x) => (y) <float[{dims(weight)}] w> {{ [n] y = {operator} }}")
    cost = costs(proto)["n"]
    assert cost.macs == counted_by_running(proto, shape) > 0
    assert cost.weight_shape == weight
    assert cost.parameters == math.prod(weight)


def test_recurrent_layers_count_both_matrices_a_step():
    proto = ones(
        "g (float[7,2,3] x) => (y) <float[1,20,3] w, float[1,20,5] r, float[1,40] b> {"
        "[n] y = LSTM<hidden_size=5>(x, w, r, b) }"
    )
    assert costs(proto)["n"].macs == 7 * 2 * 20 * (3 + 5)
    assert costs(proto)["n"].parameters == 20 * 3 + 20 * 5 + 40


def test_a_product_of_two_activations_has_macs_and_no_weight():
    proto = ones("g (float[2,3,4] x, float[2,4,5] z) => (y) { [n] y = MatMul(x, z) }")
    cost = costs(proto)["n"]
    assert (cost.macs, cost.weight_shape, cost.weight_bits, cost.parameters) == (2 * 3 * 5 * 4, None, None, 0)
    assert cost.bops == cost.macs * 32 * 32


def test_elementwise_and_normalization_have_parameters_but_no_macs():
    proto = ones(
        "g (float[1,4,3,3] x) => (y) <float[4] s, float[4] b, float[4] m, float[4] v, float[1,4,1,1] k> {"
        "[bn] t = BatchNormalization(x, s, b, m, v)  [mul] y = Mul(t, k) }"
    )
    found = costs(proto)
    assert (found["bn"].macs, found["bn"].parameters, found["bn"].size) == (0, 16, 64)
    assert (found["mul"].macs, found["mul"].parameters) == (0, 4)


def test_constants_that_configure_an_operator_are_no_parameters():
    proto = ones(
        "g (float[1,4,3,3] x) => (y) <float low = {0.0}, float high = {6.0}, float[4] sizes = {1.0,1.0,2.0,2.0}> {"
        "a = Clip(x, low, high)  y = Resize(a, , sizes) }"
    )
    del proto.graph.initializer[:]
    for name, values in (("low", 0.0), ("high", 6.0), ("sizes", [1.0, 1.0, 2.0, 2.0])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), name))
    assert not costs(proto)


CONV = """g (float[N,3,8,8] x) => (float[N,10] y) <float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[10,8] w3> {
  [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [r1] ar = Relu(a)
  [c2] b = Conv<group=8>(ar, w2)
  [p] c = GlobalAveragePool(b)
  [f] d = Flatten(c)
  [fc] y = Gemm<transB=1>(d, w3)
}"""


def test_an_unknown_batch_counts_as_one_and_is_reported():
    source = qdq.model(CONV)
    shapes = concrete_shapes(source.graph)
    assert shapes.assumed == ("the batch of x (N×3×8×8) is assumed to be 1",)
    one = layer_costs(source.graph, shapes)
    assert [c.macs for c in one] == [8 * 8 * 8 * 27, 8 * 6 * 6 * 9, 80]
    four = layer_costs(source.graph, {"x": (4, 3, 8, 8)})
    assert [c.macs for c in four] == [4 * c.macs for c in one]
    assert concrete_shapes(source.graph, {"x": (4, 3, 8, 8)}).assumed == ("x (N×3×8×8) is assumed to be 4×3×8×8",)
    assert source.graph.inputs[0].shape[0] == "N", "the graph itself is left alone"


def test_inputs_that_share_an_open_dimension_agree():
    source = qdq.model(
        "g (float[N,4] x, float[N,4] z) => (float[N,3] y) <float[4,3] w> { a = Add(x, z) [m] y = MatMul(a, w) }"
    )
    assert costs(source, z=(5, 4))["m"].macs == 5 * 4 * 3


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"q": (1, 3, 8, 8)}, "not a model input: x"),
        ({"x": (1, 3, 8)}, "does not fit"),
        ({"x": (1, 4, 8, 8)}, "N×3×8×8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ConfigError, match=message):
        layer_costs(qdq.model(CONV).graph, shapes)


def test_open_dimensions_other_than_the_batch_leave_macs_unknown():
    source = qdq.model("g (float[N,3,H,W] x) => (float[N,8,P,Q] y) <float[8,3,3,3] w> { [c] y = Conv(x, w) }")
    found = layer_costs(source.graph)
    assert (found[0].macs, found[0].bops, found[0].parameters) == (None, None, 216)
    assert totals(source.graph, found).unknown == ("c",)
    assert costs(source, x=(1, 3, 5, 5))["c"].macs == 8 * 9 * 27


@pytest.mark.parametrize("bits", [8, 6, 4, 3, 2])
def test_a_qdq_model_has_the_macs_of_the_float_one_and_its_own_bits(bits):
    source = qdq.model(CONV, opset=21)
    before = layer_costs(source.graph)
    insert(source, context(source, "onnxq", weight_bits=bits, activation_bits=bits, first_last_bits=None))
    after = layer_costs(copy_of(source).graph)
    assert [(c.name, c.macs, c.parameters, c.weight_shape) for c in after] == [
        (c.name, c.macs, c.parameters, c.weight_shape) for c in before
    ]
    assert {(c.weight_bits, c.activation_bits) for c in after} == {(bits, bits)}
    assert [c.bops for c in after] == [bits * bits * c.macs for c in before]
    assert {(c.weight_bits, c.activation_bits) for c in before} == {(32, 32)}
    # Codes (4 bits: two per byte), a float32 scale and a zero point per channel, and the int32 bias with its scale.
    per_byte = 2 if bits <= 4 else 1
    assert after[0].size == 216 // per_byte + 8 * 4 + 8 // per_byte + 8 * 4 + 8 * 4


def test_operand_bits_follow_the_operands_of_other_tools():
    """A float weight quantized in the graph, and uint8 activations downstream of a Flatten: as exporters write it."""
    w = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("QuantizeLinear", ["w", "s", "zs"], ["wq"]),
        helper.make_node("DequantizeLinear", ["wq", "s", "zs"], ["wd"]),
        helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["f", "wt"], ["y"], name="n"),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.uint8(3), "z"),
        numpy_helper.from_array(np.int8(0), "zs"),
        numpy_helper.from_array(w, "w"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found = costs(proto)
    assert list(found) == ["n"]
    assert (found["n"].weight_bits, found["n"].activation_bits, found["n"].macs) == (8, 8, 24)
    assert (found["n"].parameters, found["n"].weight_shape) == (12, (4, 3))
    assert found["n"].size == 48 + 4 + 1, "the constants that the weight is computed from, as stored"


def test_integer_operators_count_too():
    text = """g (uint8[1,3,8,8] x) => (uint8[1,4,6,6] y)
    <float s = {0.1}, uint8 z = {128}, int8[4,3,3,3] w, int8 wz = {0}, int32[4] b> {
      [n] y = QLinearConv(x, s, z, w, s, wz, s, z, b) }"""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    del parsed.graph.value_info[:]
    parsed.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "w"))
    parsed.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.int32), "b"))
    cost = costs(parsed)["n"]
    assert (cost.macs, cost.parameters, cost.weight_bits, cost.activation_bits) == (4 * 36 * 27, 112, 8, 8)
    assert (cost.bops, cost.size) == (64 * cost.macs, 108 + 16)


def test_weights_computed_from_constants_are_parameters():
    text = """g (float[1,4] x) => (float[1,3] y) <int64[2] shape = {4, 3}> {
      w = ConstantOfShape<value = float[1] {0.5}>(shape)  [n] y = MatMul(x, w) }"""
    found = costs(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}'))
    assert list(found) == ["n"]
    assert (found["n"].parameters, found["n"].weight_shape, found["n"].size) == (12, (4, 3), 16)


def test_a_weight_made_at_random_is_not_one():
    text = "g (float[1,4] x) => (float[1,3] y) { w = RandomNormal<shape=[4,3]>()  [n] y = MatMul(x, w) }"
    found = costs(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}'))
    assert (found["n"].parameters, found["n"].weight_shape, found["n"].macs) == (0, None, 12)


def test_subgraphs_are_counted_once_each_with_their_place():
    text = """g (float[1,4] x, bool c) => (float[1,4] y) <float[4,4] w> {
      [top] a = MatMul(x, w)
      [if] y = If (c) <
        then_branch = yes () => (float[1,4] t) <float[4,4] u> { [inner] t = MatMul(a, u) },
        else_branch = no () => (float[1,4] e) { e = Relu(a) }
      > }"""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    del parsed.graph.value_info[:]
    weight = np.ones((4, 4), np.float32)
    parsed.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    branch = parsed.graph.node[1].attribute[0].g
    del branch.value_info[:]
    branch.initializer.append(numpy_helper.from_array(weight, "u"))
    source = load(parsed)
    found = layer_costs(source.graph)
    assert [(c.name, c.body, c.macs) for c in found] == [("top", "", 16), ("inner", "if.then_branch", 16)]
    assert totals(source.graph, found).parameters == 32


def test_shared_weights_are_counted_once_in_the_totals():
    source = qdq.model(
        "g (float[1,4] x) => (float[1,4] y) <float[4,4] w> { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"
    )
    found = layer_costs(source.graph)
    whole = totals(source.graph, found)
    assert [c.parameters for c in found] == [16, 16]
    assert (whole.parameters, whole.size, whole.macs) == (16, 64, 32)


@pytest.mark.parametrize(
    ("macs", "weight", "activation", "expected"),
    [(10, 4, 8, 320), (10, 8, 8, 640), (10, 32, 32, 10240), (10, 4, 32, 10240), (10, 16, 16, 2560), (None, 8, 8, None)],
)
def test_bit_operations(macs, weight, activation, expected):
    assert bit_operations(macs, weight, activation) == expected
    assert bit_operations(10, None, None) == 10240


def test_stored_bytes_need_no_values():
    source = qdq.model(CONV, opset=21)
    insert(source, context(source, "onnxq", weight_bits=4, first_last_bits=None))
    proto = to_proto(source)
    written = {t.name: len(t.raw_data) for t in proto.graph.initializer if t.raw_data}
    constants = {t.name: t for n in source.graph.nodes for t in n.inputs if t.name in written}
    assert len(constants) > 8
    for name, tensor in constants.items():
        assert stored_bytes(tensor) == written[name], name


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [  # published figures; the parameters include the statistics of batch normalization
        ("resnet50", 4089.2e6, 25_610_152),
        ("vgg19", 19632e6, 143_667_240),
        ("squeezenet", 349.15e6, 1_235_496),
        ("bvlc_alexnet", 654.6e6, 60_965_224),
    ],
)
def test_known_architectures(name, macs, parameters):
    source = load(Path(onnx.__file__).parent / LIGHT.format(name))
    found = layer_costs(source.graph)
    whole = totals(source.graph, found)
    assert not whole.unknown
    assert whole.macs == pytest.approx(macs, rel=1e-3)
    assert whole.parameters == parameters


@pytest.mark.parametrize("name", ["densenet121", "inception_v1", "inception_v2", "shufflenet", "zfnet512"])
def test_every_light_model_can_be_counted(name):
    source = load(Path(onnx.__file__).parent / LIGHT.format(name))
    assert not totals(source.graph, layer_costs(source.graph)).unknown


def test_mobilenet_v2(shared):
    source = load(shared / "models" / "mobilenetv2_imagenet.onnx")
    whole = totals(source.graph, layer_costs(source.graph))
    assert whole.macs == pytest.approx(300.8e6, rel=1e-3)  # Sandler et al.: 300 M
    assert whole.parameters == 3_487_816


@pytest.mark.parametrize("move", ["Transpose<perm=[0,2,3,1]>(q)", "com.onnxq.ChannelsLast(q)"])
def test_what_only_moves_keeps_the_width(move):
    source = load(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1]> g (float[1,3,4,5] x) => (uint8[1,4,5,3] y) '
            f"<float s = {{0.5}}, uint8 z = {{0}}> {{ q = QuantizeLinear(x, s, z) y = {move} }}"
        )
    )
    source.graph.nodes[0].metadata = {marks.BITS.key: "4"}
    assert tensor_bits(source.graph.outputs[0]) == 4


def test_format_shape():
    assert format_shape((1, "C", None)) == "1×C×?"
    assert format_shape(()) == "scalar"
    assert format_shape(None) == "?"
