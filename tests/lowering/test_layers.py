"""Conv, ConvTranspose, Gemm and MatMul in integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ml_dtypes import int4, uint4
from onnx import numpy_helper

from support.build import Qdq, uniform
from support.prove.lowering import Lowered, assert_same, check, label, lower

RNG = np.random.default_rng(3)
IMAGE = "float[1,4,9,7] x"
# Odd numbers, so that no result lies half between two codes: there a dyadic rescale rounds up, QuantizeLinear to even.
X, Y = 0.011317, 0.083719


def codes(*shape: int, low: int = -127, high: int = 128) -> np.ndarray:
    return RNG.integers(low, high, shape)


def constant(lowered: Lowered, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in lowered.proto.graph.initializer if t.name == name))


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def metadata(node: onnx.NodeProto) -> dict[str, str]:
    return {p.key: p.value for p in node.metadata_props}


def conv(attrs: str = "", shape: tuple[int, ...] = (6, 4, 3, 3), behind: str = "y = Identity(c)", **weight) -> Qdq:
    """x → Q → Conv with weight and int32 bias → y → Q."""
    given = {"codes": codes(*shape), "scale": np.linspace(0.0103, 0.0197, shape[0]), "axis": 0} | weight
    scale = np.broadcast_to(np.asarray(given["scale"]) * X, (shape[0],))
    made = Qdq(
        IMAGE if len(shape) == 4 else "float[1,4,9] x", "float[1,M,H,W] r" if len(shape) == 4 else "float[1,M,H] r"
    )
    made.q("x", X).weight("w", **given).bias("b", codes(shape[0], low=-5000, high=5000), scale)
    made.node(
        f"[conv] c = Conv<{attrs}>(x_d, w_d, b_d) {behind}" if attrs else f"[conv] c = Conv(x_d, w_d, b_d) {behind}"
    )
    return made.q("y", Y).node("r = Identity(y_d)")


BYTES = codes(6, 4, 3, 3, low=0, high=256)
WEIGHTS = {
    "s8 per channel": {},
    "s8 per channel with zero points": {"zero_point": codes(6, low=-20, high=20)},
    "s8 per tensor": {"scale": 0.015, "axis": None},
    "u8 per tensor": {"codes": BYTES, "scale": 0.0139, "zero_point": 120, "axis": None, "dtype": np.uint8},
    "u8 per channel": {"codes": BYTES, "zero_point": codes(6, low=100, high=150), "dtype": np.uint8},
    "int4": {"codes": BYTES // 16 - 8, "scale": np.full(6, 0.113), "dtype": int4},
    "uint4": {"codes": BYTES // 16, "scale": np.full(6, 0.113), "zero_point": codes(6, low=5, high=11), "dtype": uint4},
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_every_kind(name: str) -> None:
    lowered = check(conv(**WEIGHTS[name]))
    assert lowered.ops["onnxq.Conv"] == 1
    stored = constant(lowered, lowered.node("onnxq.Conv").input[1])
    assert stored.shape == (6, 3, 3, 4)
    assert stored.dtype.name == ("int4" if "int4" in name else "int8")


ATTRIBUTES = {
    "strides and pads": ("strides=[2,1], pads=[1,0,0,2]", (6, 4, 3, 3)),
    "dilations": ("dilations=[2,2], pads=[2,2,2,2]", (6, 4, 3, 3)),
    "groups": ("group=2", (6, 2, 3, 3)),
    "depthwise": ("group=4, pads=[1,1,1,1]", (8, 1, 3, 3)),
    "same upper": ('auto_pad="SAME_UPPER", strides=[2,2]', (6, 4, 3, 3)),
    "same lower": ('auto_pad="SAME_LOWER", strides=[2,2]', (6, 4, 2, 2)),
    "one dimension": ("strides=[2], pads=[2,1]", (6, 4, 3)),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_windows_of_every_kind(name: str) -> None:
    text, shape = ATTRIBUTES[name]
    lowered = check(conv(text, shape))
    assert lowered.ops["onnxq.Conv"] == 1 and lowered.ops["Transpose"] == 2
    assert not lowered.reasons


def test_activations_go_into_the_range_of_the_codes() -> None:
    """Zero point 128, scale 0.0837: 0 is 128, 6 is 200, -1 is 116."""
    ranges = {
        "y = Relu(c)": (128, 255),
        "k = Constant<value_float=6.0>() o = Constant<value_float=-1.0>() y = Clip(c, o, k)": (116, 200),
        "k = Constant<value_float=6.0>() a = Relu(c) y = Clip(a, , k)": (128, 200),
    }
    for behind, expected in ranges.items():
        lowered = check(conv(behind=behind))
        attrs = attributes(lowered.node("onnxq.Conv"))
        assert (attrs["qmin"], attrs["qmax"]) == expected
        assert "Relu" not in lowered.ops and "Clip" not in lowered.ops


def test_what_a_node_comes_from_is_told() -> None:
    lowered = check(conv(behind="[act] y = Relu(c)"))
    node = lowered.node("onnxq.Conv")
    told = metadata(node)
    assert node.name == "conv"
    assert told["onnxq.source"].split("\n")[:2] == ["conv", "act"]
    assert told["onnxq.tensor"] == "y_q"
    assert told["onnxq.rescale"] in ("fixed", "general")


@pytest.mark.parametrize("form", ["fixed", "general"])
def test_the_form_that_was_asked_for(form: str) -> None:
    lowered = check(conv(), f"convert-opset{{version=21}},lower-dyadic{{rescale={form}}}")
    node = lowered.node("onnxq.Conv")
    shift = constant(lowered, node.input[4])
    assert metadata(node)["onnxq.rescale"] == form
    assert (shift.tolist() == [32]) == (form == "fixed")
    assert any(f"1 {form}" in note for note in lowered.report.notes)


def test_a_float_bias_becomes_int32() -> None:
    made = conv()
    reals = RNG.normal(0, 0.4, 6)
    made.const("bias", reals)
    made.nodes = [n.replace("b_d)", "bias)") for n in made.nodes]
    lowered = check(made, share=0.02)  # a step of the bias is up to 2.5e-3 of one of the result
    found = constant(lowered, lowered.node("onnxq.Conv").input[2])
    assert np.array_equal(
        found, np.rint(np.float32(reals) / (np.float32(X) * np.linspace(0.0103, 0.0197, 6).astype(np.float32)))
    )
    assert any("biases stored as floats" in note for note in lowered.report.notes)


def test_a_bias_of_another_scale_is_quantized_again() -> None:
    made = conv()
    made.bias("other", codes(6, low=-50, high=50), np.full(6, 0.02))
    made.nodes.insert(0, made.nodes.pop())
    made.nodes = [n.replace("b_d)", "other_d)") for n in made.nodes]
    lowered = check(made, share=0.02)
    assert np.abs(constant(lowered, lowered.node("onnxq.Conv").input[2])).max() > 1000


def test_a_weight_behind_quantize_and_dequantize_is_quantized_now() -> None:
    """As pytorch-quantization exports it: float, QuantizeLinear, DequantizeLinear."""
    made = Qdq(IMAGE, "float[1,6,7,5] r").q("x", 0.01).const("w", RNG.normal(0, 0.5, (6, 4, 3, 3)))
    made.const("ws", np.linspace(0.0103, 0.0197, 6)).const("wz", np.zeros(6), np.int8)
    made.node("wq = QuantizeLinear<axis=0>(w, ws, wz) wd = DequantizeLinear<axis=0>(wq, ws, wz) y = Conv(x_d, wd)")
    lowered = check(made.q("y", 0.0517).node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.Conv"] == 1 and lowered.ops["QuantizeLinear"] == 1


def test_a_weight_that_two_layers_share_is_stored_once() -> None:
    made = Qdq(IMAGE, "float[1,4,9,7] r").q("x", 0.01).weight("w", codes(4, 4, 3, 3), np.full(4, 0.01), axis=0)
    made.node("a = Conv<pads=[1,1,1,1]>(x_d, w_d)").q("a", 0.1).node("b = Conv<pads=[1,1,1,1]>(a_d, w_d)").q("b", 0.9)
    lowered = check(made.node("r = Identity(b_d)"))
    first, second = (n for n in lowered.proto.graph.node if label(n) == "onnxq.Conv")
    assert first.input[1] == second.input[1]


REFUSED = {
    "3-D": (
        Qdq("float[1,2,4,4,4] x", "float[1,2,2,2,2] r").q("x", 0.01).weight("w", codes(2, 2, 3, 3, 3), 0.01),
        "it is a 3-D convolution",
    ),
    "overflow": (
        Qdq("float[1,70000,1,1] x", "float[1,1,1,1] r").q("x", 0.01, 0)
        .weight("w", np.full((1, 70000, 1, 1), 127), 0.01),
        f"its accumulator could reach {70000 * 127 * 255} in channel 0, beyond int32 (2147483647)",
    ),
    "blocks": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 0.01)
        .node("w_d = DequantizeLinear<axis=1, block_size=2>(w_i, w_s)")
        .const("w_i", codes(2, 4, 1, 1), np.int8).const("w_s", np.full((2, 2, 1, 1), 0.01)),
        "its weight has one scale per 2 elements",
    ),
    "float weight": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 0.01).const("w_d", RNG.normal(size=(2, 4, 1, 1))),
        "its weight is not quantized",
    ),
    "input channels": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 0.01)
        .weight("w", codes(2, 4, 1, 1), np.full(4, 0.01), axis=1),
        "the scales of its weight run along axis 1, not along the output channels",
    ),
    "16 bits": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 0.01)
        .weight("w", codes(2, 4, 1, 1), 0.01, dtype=np.int16),
        "its weight is int16, not int8, uint8, int4 or uint4",
    ),
    "wide input": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 0.01, 0, np.uint16)
        .weight("w", codes(2, 4, 1, 1), 0.01),
        "its input x_d is not quantized",
    ),
    "too fine": (
        Qdq("float[1,4,1,1] x", "float[1,2,1,1] r").q("x", 1e10).weight("w", codes(2, 4, 1, 1), 1e10),
        "a rescale by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_why_a_convolution_stays_float(name: str) -> None:
    made, reason = REFUSED[name]
    proto = made.node("[conv] y = Conv(x_d, w_d)").q("y", 0.05).node("r = Identity(y_d)").proto()
    lowered = lower(proto)
    assert lowered.reasons["conv"].startswith(reason)
    assert lowered.ops["Conv"] == 1 and "onnxq.Conv" not in lowered.ops


GEMMS = {
    "plain": ("", (5, 8), (8,), (1, 5)),
    "transposed weight": ("transB=1", (8, 5), (8,), (1, 5)),
    "transposed input": ("transA=1", (1, 8), (8,), (1, 5)),
    "alpha and beta": ("alpha=0.5, beta=3.0, transB=1", (8, 5), (8,), (1, 5)),
    "bias of one row": ("transB=1", (8, 5), (1, 8), (1, 5)),
    "scalar bias": ("transB=1", (8, 5), (), (1, 5)),
}


@pytest.mark.parametrize("name", GEMMS)
def test_gemm(name: str) -> None:
    attrs, shape, bias, _ = GEMMS[name]
    channels = 0 if "transB" in attrs else 1
    rows = shape[1] if "transB" in attrs else shape[0]
    made = Qdq(f"float[{f'{rows},4' if 'transA' in attrs else f'4,{rows}'}] x", "float[4,N] r").q("x", 0.01)
    made.weight("w", codes(*shape), np.linspace(0.0103, 0.0197, shape[channels]), axis=channels)
    made.bias("b", codes(*bias, low=-900, high=900), np.float32(0.00015))
    made.node(f"[fc] y = Gemm<{attrs}>(x_d, w_d, b_d)" if attrs else "[fc] y = Gemm(x_d, w_d, b_d)").q("y", 0.0317)
    lowered = check(made.node("r = Identity(y_d)"), share=0.02, count=8)
    assert lowered.ops["onnxq.Gemm"] == 1
    assert lowered.ops.get("Transpose", 0) == int("transA" in attrs)
    assert constant(lowered, lowered.node("onnxq.Gemm").input[1]).shape == (rows, shape[channels])


def test_gemm_with_a_factor_that_is_not_positive_stays() -> None:
    made = Qdq("float[2,4] x", "float[2,3] r").q("x", 0.01).weight("w", codes(4, 3), 0.01)
    made.node("[fc] y = Gemm<alpha=-1.0>(x_d, w_d)").q("y", 0.05).node("r = Identity(y_d)")
    assert lower(made.proto()).reasons["fc"].startswith("alpha is -1.0")


def test_logits_without_a_quantizer_are_raw_accumulators_behind_one_dequantize() -> None:
    made = Qdq("float[2,6] x", "float[2,3] y").q("x", 0.01, 100).weight("w", codes(6, 3), [0.01, 0.02, 0.03], axis=1)
    lowered = check(made.node("y = Gemm(x_d, w_d)"))
    assert lowered.ops == {"QuantizeLinear": 1, "onnxq.Gemm": 1, "DequantizeLinear": 1}
    gemm, last = lowered.node("onnxq.Gemm"), lowered.node("DequantizeLinear")
    assert (constant(lowered, gemm.input[3]).tolist(), constant(lowered, gemm.input[4]).tolist()) == ([2], [1])
    assert attributes(gemm)["y_type"] == 6 and metadata(gemm)["onnxq.rescale"] == "identity"
    assert attributes(last)["axis"] == 1 and last.output[0] == "y"
    assert np.allclose(constant(lowered, last.input[1]), np.float32(0.01) * np.float32([0.01, 0.02, 0.03]))


def test_matmul_takes_the_bias_behind_it() -> None:
    made = (
        Qdq("float[2,3,8] x", "float[2,3,5] r")
        .q("x", 0.01)
        .weight("w", codes(8, 5), np.linspace(0.0103, 0.0197, 5), axis=1)
    )
    made.bias("b", codes(5, low=-500, high=500), np.linspace(0.000103, 0.000197, 5))
    made.node("[mm] p = MatMul(x_d, w_d) [add] s = Add(b_d, p) [act] y = Relu(s)").q("y", 0.05)
    lowered = check(made.node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.Gemm"] == 1 and "onnxq.Add" not in lowered.ops
    assert metadata(lowered.node("onnxq.Gemm"))["onnxq.source"].split("\n")[:3] == ["mm", "add", "act"]


def test_a_product_of_activations() -> None:
    made = Qdq("float[2,3,8] a, float[2,8,5] b", "float[2,3,5] r").q("a", 0.0113, 120).q("b", 0.0083, 0, np.int8)
    made.node("p = MatMul(a_d, b_d) k = Constant<value_float=4.0>() y = Div(p, k)").q("y", 0.0107)
    lowered = check(made.node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.MatMul"] == 1 and "Div" not in lowered.ops


def test_a_stack_of_constant_matrices() -> None:
    made = Qdq("float[2,3,8] a", "float[2,3,5] r").q("a", 0.01).weight("w", codes(2, 8, 5), 0.01)
    lowered = check(made.node("y = MatMul(a_d, w_d)").q("y", 0.1).node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.MatMul"] == 1


PRODUCTS = {
    "float[2,170000] a, float[170000,5] b": "its accumulator could reach 2785280000, beyond int32",
    "float[140] a, float[140,5] b": "a factor is a vector, or its rank is unknown",
}


@pytest.mark.parametrize("inputs", PRODUCTS)
def test_why_a_product_of_activations_stays_float(inputs: str) -> None:
    made = Qdq(inputs, "float[5] r" if "[140]" in inputs else "float[2,5] r")
    made.q("a", 0.01).q("b", 0.01).node("[mm] y = MatMul(a_d, b_d)").q("y", 1.0)
    (reason,) = lower(made.node("r = Identity(y_d)").proto()).reasons.values()
    assert reason.startswith(PRODUCTS[inputs])


def test_a_product_of_sums_of_unknown_length() -> None:
    made = Qdq("float[2,T] a, float[T,5] b", "float[2,5] r").q("a", 0.0113, 120).q("b", 0.0083, 0, np.int8)
    made.node("y = MatMul(a_d, b_d)").q("y", 0.0107)
    lowered = check(made.node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.MatMul"] == 1


TRANSPOSED = {
    "kernel as large as the stride": ("strides=[2,2]", (4, 6, 2, 2)),
    "overlapping": ("strides=[2,2]", (4, 6, 3, 3)),
    "cropped": ("strides=[2,2], pads=[1,1,1,1]", (4, 6, 4, 4)),
    "one more row": ("strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", (4, 6, 3, 3)),
    "crooked": ("strides=[3,3], pads=[0,1,2,1]", (4, 6, 5, 4)),
    "no stride": ("pads=[1,1,1,1]", (4, 6, 3, 3)),
    "no stride, dilated": ("dilations=[2,2]", (4, 6, 3, 3)),
    "groups": ("strides=[2,2], group=2", (4, 3, 3, 3)),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str) -> None:
    attrs, shape = TRANSPOSED[name]
    made = Qdq(IMAGE, "float[1,M,H,W] r").q("x", X, 90)
    scales = np.linspace(0.0103, 0.0197, shape[1])
    made.weight("w", codes(*shape), scales, codes(shape[1], low=-5, high=5), axis=1)
    made.bias("b", codes(6, low=-500, high=500), np.tile(X * scales, 6 // shape[1]))
    lowered = check(made.node(f"[up] y = ConvTranspose<{attrs}>(x_d, w_d, b_d)").q("y", Y).node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.Conv"] == 1 and "ConvTranspose" not in lowered.ops


def test_why_a_transposed_convolution_stays_float() -> None:
    texts = {
        "strides=[2,1]": "strides [2, 1] with dilations [1, 1] do not map to a convolution and DepthToSpace",
        'auto_pad="SAME_UPPER", strides=[2,2]': "its pads depend on its output_shape",
        "pads=[3,3,3,3]": "pads [3, 3, 3, 3] and output_padding [0, 0] reach beyond its kernel",
    }
    for attrs, reason in texts.items():
        made = Qdq(IMAGE, "float[1,M,H,W] r").q("x", 0.01).weight("w", codes(4, 6, 3, 3), 0.01)
        made.node(f"[up] y = ConvTranspose<{attrs}>(x_d, w_d)").q("y", Y).node("r = Identity(y_d)")
        assert lower(made.proto()).reasons["up"] == reason


def test_zero_channels_and_saturated_ends() -> None:
    """An all-zero channel is its bias; results beyond the codes saturate."""
    weights = codes(6, 4, 3, 3)
    weights[2] = 0
    proto = conv(codes=weights).proto()
    lowered = lower(proto)
    assert_same(lowered, uniform(proto, low=-40.0, high=40.0))
