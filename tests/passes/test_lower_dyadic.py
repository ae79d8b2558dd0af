"""Pass lower-dyadic as a whole: names, order, islands, what it refuses; the zoo in several profiles."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxq
from onnxq import pipeline
from onnxq.check.integer_only import check_integer
from onnxq.context import PassContext
from onnxq.errors import PassError
from onnxq.graph.model import from_proto
from support.build import Qdq, uniform
from support.cases.random_graphs import feeds, network
from support.cases.zoo import KINDS
from support.prove.lowering import FUSE, LOWER, again, assert_same, check, label, lower, q_points
from support.runs import run

RNG = np.random.default_rng(11)


def block() -> Qdq:
    """Two convolutions, an identity shortcut, a head: what HAWQ-V3 draws."""
    made = Qdq("float[N,4,8,8] x", "float[N,5] y").q("x", 0.0117, 120)
    for name, shape in (("v", (4, 4, 3, 3)), ("w", (4, 4, 3, 3))):
        made.weight(name, RNG.integers(-127, 128, shape), np.linspace(0.0103, 0.0197, shape[0]), axis=0)
    made.node("[c1] a0 = Conv<pads=[1,1,1,1]>(x_d, v_d) [r1] a = Relu(a0)").q("a", 0.0713, 0)
    made.node("[c2] b = Conv<pads=[1,1,1,1]>(a_d, w_d) [add] s0 = Add(b, x_d) [r2] s = Relu(s0)").q("s", 0.3317, 0)
    made.node("[pool] g = GlobalAveragePool(s_d)").q("g", 0.1931, 0)
    made.node("[flat] f = Flatten(g_d)").q("f", 0.1931, 0)
    made.weight("h", RNG.integers(-127, 128, (5, 4)), np.linspace(0.0103, 0.0197, 5), axis=0)
    return made.node("[fc] y = Gemm<transB=1>(f_d, h_d)")


def test_every_quantized_tensor_keeps_its_name() -> None:
    proto = block().proto()
    lowered = check(block())
    made = {name for node in lowered.proto.graph.node for name in node.output}
    assert set(q_points(proto)) == {"x_q", "a_q", "s_q", "g_q", "f_q"} <= made
    assert [v.name for v in lowered.proto.graph.input] == ["x"] and [v.name for v in lowered.proto.graph.output] == [
        "y"
    ]
    assert lowered.ops == {
        "QuantizeLinear": 1, "Transpose": 7, "onnxq.Conv": 1, "onnxq.ConvAdd": 1, "onnxq.ReduceMean": 1, "Flatten": 1,
        "onnxq.Gemm": 1, "DequantizeLinear": 1,
    }  # fmt: skip
    assert check_integer(lowered.proto) == []


def test_the_order_of_nodes_is_kept() -> None:
    lowered = lower(block().proto())
    names = [n.name for n in lowered.proto.graph.node if n.domain == "com.onnxq"]
    assert names == ["c1", "c2", "add", "pool", "fc"]


def test_it_runs_without_the_kernels_and_ends_near_the_qdq_model() -> None:
    proto = block().proto()
    lowered = lower(proto, FUSE)
    for feed in uniform(proto, 4):
        want, got = run(proto, feed)["y"], run(lowered.proto, feed)["y"]
        assert np.abs(want - got).max() < 0.1 * np.abs(want).max()


def test_islands_stand_between_dequantize_and_quantize() -> None:
    made = (
        Qdq("float[2,4] x", "float[2,4] r")
        .q("x", 0.0117)
        .node("[up] u = Exp(x_d) [odd] v = Sin(u) [cum] y = CumSum(v, k)")
    )
    made.const("k", 1, np.int64).q("y", 0.0333).node("[act] z = Sigmoid(y_d)").q("z", 1 / 256, 0).node(
        "r = Identity(z_d)"
    )
    lowered = check(made)
    assert set(lowered.reasons) == {"up", "odd", "cum"}
    assert lowered.reasons["cum"] == "CumSum has no integer operator"
    assert [f.node for f in check_integer(lowered.proto)] == ["up", "odd", "cum"]


def test_what_prepares_the_input_and_what_is_behind_the_end_is_no_island() -> None:
    made = Qdq("float[2,4] x", "float[2,3] y").const("m", 0.2).node("[prep] p = Sub(x, m)").q("p", 0.0117)
    made.weight("w", RNG.integers(-127, 128, (4, 3)), 0.0131).node("[fc] l = Gemm(p_d, w_d) [soft] y = Softmax(l)")
    lowered = check(made)
    assert set(lowered.reasons) == {"prep", "soft"}
    assert check_integer(lowered.proto) == []


def test_a_value_that_floats_read_too_is_dequantized_for_them() -> None:
    made = Qdq("float[2,4] x", "float[2,3] r, float[2,3] l, float[2,3] t").q("x", 0.0117)
    made.weight("w", RNG.integers(-127, 128, (4, 3)), np.linspace(0.01, 0.02, 3), axis=1)
    made.node("l = Gemm(x_d, w_d) t = Sin(l)").q("l", 0.0533).node("r = Identity(l_d)")
    lowered = check(made)
    assert lowered.ops["onnxq.Gemm"] == 1 and lowered.ops["onnxq.Requantize"] == 1
    assert {o for n in lowered.proto.graph.node if n.op_type == "DequantizeLinear" for o in n.output} >= {"l"}


def test_what_only_a_body_reads_is_dequantized_for_it() -> None:
    made = (
        Qdq("float[2,4] x, bool flag", "float[2,3] y")
        .q("x", 0.0117)
        .weight("w", RNG.integers(-127, 128, (4, 3)), 0.0131)
    )
    made.node(
        "[fc] l = Gemm(x_d, w_d) [choice] y = If (flag) <then_branch = a () => (float[2,3] t) { [in] t = Relu(l) },"
        " else_branch = b () => (float[2,3] e) { k = Constant<value_floats=[0.0]>() s = Constant<value_ints=[2,3]>()"
        " e = Expand(k, s) }>"
    )
    proto = made.proto()
    lowered = lower(proto)
    assert lowered.ops == {"QuantizeLinear": 1, "onnxq.Gemm": 1, "DequantizeLinear": 1, "If": 1}
    feed = {"x": RNG.uniform(-1, 1, (2, 4)).astype(np.float32), "flag": np.array(True)}
    assert np.allclose(run(proto, feed)["y"], run(lowered.proto, feed)["y"], atol=1e-5)


def test_half_precision_is_dequantized_in_single() -> None:
    """Scales of accumulators, 1e-8 here, are nothing in float16."""
    made = Qdq("float16[2,4] x", "float16[2,3] y").const("s", 1e-4, np.float16).const("z", 0, np.int8)
    made.const("w_i", RNG.integers(-127, 128, (4, 3)), np.int8)
    made.node("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear(w_i, s, z)")
    proto = made.node("y = Gemm(d, w)").proto()
    lowered = lower(proto)
    assert lowered.ops == {"QuantizeLinear": 1, "onnxq.Gemm": 1, "DequantizeLinear": 1, "Cast": 1}
    feed = {"x": RNG.uniform(-0.01, 0.01, (2, 4)).astype(np.float16)}
    want, got = run(proto, feed)["y"], run(lowered.proto, feed)["y"]
    assert got.dtype == np.float16 and np.abs(want - got).max() <= 0.01 * np.abs(want).max() and np.any(want)


def test_an_opset_that_is_too_old_and_a_model_without_quantizers() -> None:
    model = from_proto(block().proto())
    model.graph.opset = 19
    with pytest.raises(PassError, match=r"convert-opset\{version=21\}"):
        pipeline.run(model, pipeline.parse("lower-dyadic"), PassContext(model))
    plain = from_proto(KINDS["residual"].model())
    with pytest.raises(PassError, match="no QuantizeLinear"):
        pipeline.run(plain, pipeline.parse("convert-opset{version=21},lower-dyadic"), PassContext(plain))


def test_contrib_quantizers_and_dead_ones() -> None:
    """onnxruntime's own Q/DQ, and a Q whose result nobody reads."""
    proto = block().q("a", 0.5, label="dead").proto()
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = "com.microsoft"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    lowered = lower(proto)
    assert lowered.ops["onnxq.Conv"] == 2 and not lowered.reasons
    assert_same(lowered, uniform(proto))


def test_sixteen_bit_activations_and_scales_per_channel_stay() -> None:
    made = Qdq("float[2,4] x", "float[2,4] r").q("x", 0.0001, 30000, np.uint16).node("[act] y = Relu(x_d)")
    lowered = lower(made.q("y", 0.01).node("r = Identity(y_d)").proto())
    assert lowered.reasons["act"] == "its input is not quantized"
    made = Qdq("float[2,4] x", "float[2,4] r").const("s", np.full(4, 0.01)).const("z", np.zeros(4), np.int8)
    made.node("q = QuantizeLinear<axis=1>(x, s, z) d = DequantizeLinear<axis=1>(q, s, z) [mm] y = MatMul(d, w_d)")
    made.weight("w", RNG.integers(-9, 9, (4, 4)), 0.01)
    made.nodes.reverse()
    lowered = lower(made.q("y", 0.01).node("r = Identity(y_d)").proto())
    assert lowered.reasons["mm"] == "its input d has per-channel scales"


def test_a_second_run_changes_nothing_even_with_islands() -> None:
    lowered = lower(qdq_of("squeeze and excite", "ascend"))
    assert lowered.reasons and again(lowered, LOWER) == 0


def qdq_of(name: str, profile: str) -> onnx.ModelProto:
    kind = KINDS[name]
    return onnxq.quantize(kind.model(), kind.feeds(), profile=profile, calibration="max", qdq=True).model


# Profiles whose biases are int32: float ones are quantized while lowering, which costs tiny layers a few codes more.
EXACT = ("onnxq", "onnxruntime-cpu", "qnn", "snpe")
COARSE = {"ascend": 0.01, "tensorrt": 0.02, "openvino": 0.02, "fbgemm": 0.01}
WHOLE = (
    "residual", "residual with batch normalization", "inverted residual", "concat", "transposed convolution in groups",
    "stacked matrices", "two inputs", "two outputs", "dynamic height and width", "shapes computed at run time",
    "shared weight", "split and slice", "constant nodes", "initializers that are inputs", "opset 7", "opset 22",
    "float16", "squeeze and excite",
)  # fmt: skip


@pytest.mark.parametrize("name", [n for n in KINDS if n != "bfloat16"])
def test_every_kind_of_model(name: str) -> None:
    """Each Q point within the bound, a second run changes nothing; what the profile quantizes wholly has no island."""
    kind = KINDS[name]
    lowered = lower(qdq_of(name, "onnxq"), FUSE)
    # Pixels are multiples of 1/255: sums of such lie half between two codes more often than chance has it.
    assert_same(lowered, kind.feeds()[:2], 0.01 if name == "pixels in" else 0.001)
    assert again(lowered, FUSE) == 0
    if name in WHOLE:
        assert check_integer(lowered.proto) == []
    else:
        assert all(f.reason for f in check_integer(lowered.proto))


@pytest.mark.parametrize("profile", [*EXACT[1:], *COARSE])
@pytest.mark.parametrize("name", ["residual", "concat", "pools, padding and activations"])
def test_other_profiles(name: str, profile: str) -> None:
    lowered = lower(qdq_of(name, profile), FUSE)
    assert_same(lowered, KINDS[name].feeds()[:2], COARSE.get(profile, 0.001))
    assert again(lowered, FUSE) == 0
    assert sum(label(n).startswith("onnxq.") for n in lowered.proto.graph.node) >= 2


@pytest.mark.parametrize("bits", [8, 5, 4, 2])
def test_every_width(bits: int) -> None:
    kind = KINDS["residual"]
    widths = {"weight_bits": bits, "activation_bits": bits, "first_last_bits": None}
    made = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max", qdq=True, **widths)
    lowered = lower(made.model, FUSE)
    assert_same(lowered, kind.feeds()[:2])
    assert check_integer(lowered.proto) == []
    for node in lowered.proto.graph.node:
        if label(node).startswith("onnxq."):
            ends = {a.name: a.i for a in node.attribute}
            assert ends["y_type"] in (5, 6) or ends["qmax"] - ends["qmin"] < 2**bits


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 60) if s != 21)]
)
def test_random_networks(seed: int) -> None:
    """Networks that nobody would draw become integers wholly. (In number 21 a tensor is half of another: ties.)"""
    made = onnxq.quantize(network(seed), feeds(seed), profile="onnxq", calibration="max", qdq=True).model
    lowered = lower(made, FUSE)
    assert check_integer(lowered.proto) == []
    assert_same(lowered, feeds(seed)[:2], 0.002)
    assert again(lowered, FUSE) == 0
