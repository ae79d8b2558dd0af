"""Feature maps: how many bytes of activations are alive at once, in float and quantized."""

from onnxq.cost.concrete_shapes import concrete_shapes
from onnxq.cost.feature_maps import feature_maps
from onnxq.cost.layer_costs import tensor_bits
from support.build import qdq
from support.insertion import context, insert

RESIDUAL = """g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,3,3] w1, float[4,4,3,3] w2> {
  [c1] a = Conv<pads=[1,1,1,1]>(x, w1)
  [r1] b = Relu(a)
  [c2] c = Conv<pads=[1,1,1,1]>(b, w2)
  [add] s = Add(c, x)
  [r2] y = Relu(s)
}"""


def test_feature_maps_of_a_residual_block():
    source = qdq.model(RESIDUAL)
    one = 4 * 8 * 8 * 4  # bytes of a float map; a and b share a buffer, c, s and y another one
    found = feature_maps(source.graph, concrete_shapes(source.graph))
    assert found is not None
    assert found.count == 3
    assert (found.largest, found.average) == ((one, one), (one, one))
    assert found.peak == (3 * one, 3 * one), "x, the first map and the sum are alive at the second convolution"

    insert(source, context(source, "tensorrt"))
    found = feature_maps(source.graph, concrete_shapes(source.graph))
    assert found is not None
    assert found.count == 3
    # x and b are read in 8 bits only; the output of the block leaves in float.
    assert found.largest == (one, one)
    assert found.peak == (3 * one, one + 2 * (one // 4))
    assert found.average == (one, (one + 2 * (one // 4)) / 3)


def test_feature_maps_are_unknown_with_open_shapes():
    source = qdq.model("g (float[N,3,H,W] x) => (float[N,8,P,Q] y) <float[8,3,3,3] w> { y = Conv(x, w) }")
    assert feature_maps(source.graph, concrete_shapes(source.graph)) is None
    known = feature_maps(source.graph, concrete_shapes(source.graph, {"x": (1, 3, 4, 4)}))
    assert known is not None
    assert known.largest == (192, 192)


def test_narrow_activations_count_with_their_width():
    source = qdq.model(RESIDUAL, opset=21)
    insert(source, context(source, "onnxq", activation_bits=4, first_last_bits=None))
    found = feature_maps(source.graph, concrete_shapes(source.graph))
    assert found is not None
    points = [n for n in source.graph.nodes if n.op == "DequantizeLinear" and n.inputs[0].inputs]
    assert points
    assert {tensor_bits(n.outputs[0]) for n in points} == {4}
    assert found.average[1] < found.average[0] / 4
