"""strip-qdq: back to float, with the weights that the integers stand for and the activations that Q had absorbed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from ml_dtypes import int4
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.numeric.quantize import fake_quantize
from onnxq.passes.strip_qdq import StripQdq
from onnxq.pipeline import PassReport
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import copy_of, qdq
from support.insertion import context, insert, observe
from support.prove.nodes import dequantize_of, dequantized, node_of, nodes_of, reads, reasons
from support.prove.values import sqnr
from support.runs import run

NET = """net (float[1,3,8,8] x) => (float[1,10] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,8,1,1] w3, float[8] b3,
 float[10,8] w4, float[10] b4, float lo = {0.0}, float hi = {6.0}>
{
    [conv] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [relu] r = Relu(c)
    [depthwise] d = Conv<pads=[1,1,1,1], group=8>(r, w2, b2)
    [relu6] d6 = Clip(d, lo, hi)
    [project] p = Conv(d6, w3, b3)
    [add] a = Add(p, r)
    [pool] g = GlobalAveragePool(a)
    [flatten] f = Flatten(g)
    [fc] y = Gemm<transB=1>(f, w4, b4)
}"""


def strip(model: Model) -> PassReport:
    return pipeline.run(model, (StripQdq(),), PassContext(model))[0]


def ops(model: Model) -> list[str]:
    return [n.op for n in model.graph.nodes]


def with_weights(model: Model, weights: dict[str, NDArray]) -> Model:
    """A copy of a float model with other constants."""
    proto = to_proto(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return from_proto(proto)


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("bits", [8, 5, 4])
@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "onnxq"])
def test_narrow_round_trip(profile: str, bits: int, through_a_file: bool) -> None:
    round_trip(profile, through_a_file, weight_bits=bits, activation_bits=bits, first_last_bits=None)


@pytest.mark.parametrize("profile", builtin_names())
def test_round_trip_of_every_profile(profile: str) -> None:
    round_trip(profile, True)


def round_trip(profile: str, through_a_file: bool, **settings: int | None) -> None:
    """quantize → strip equals the float model with fake-quantized weights, exactly."""
    model = qdq.model(NET, opset=21)
    original = copy_of(model)
    ctx = context(model, profile, **settings)
    insert(model, ctx, fuse=True)
    assert ctx.placement is not None
    weights = {
        layer.weight.name: fake_quantize(constant_values(layer.weight), ctx.placement.weight_qparams[layer.node.name])
        for layer in ctx.placement.layers
    }
    biases = {
        f"b{i}": dequantized(model, name, 2)
        for i, name in enumerate(("conv", "depthwise", "project", "fc"), 1)
        if reads(model, name)[2] == "DQ"
    }
    if through_a_file:
        model = copy_of(model)
    report = strip(model)
    assert report.changed and not report.skipped
    assert sorted(o for o in ops(model) if o != "Identity") == sorted(ops(original))  # Relu and Clip are back
    twin = with_weights(original, weights | biases)
    for feed in qdq.feeds(model, seed=5):
        np.testing.assert_array_equal(run(model, feed)["y"], run(twin, feed)["y"])
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_quantizing_again_gives_the_same_integers() -> None:
    model = qdq.model(NET)
    feeds = qdq.feeds(model)
    statistics = observe(model, feeds)
    insert(model, context(model, statistics=statistics))
    first = [run(model, f)["y"] for f in feeds]
    strip(model)
    assert pipeline.run(model, pipeline.parse("eliminate-identity"), PassContext(model))
    insert(model, context(model, statistics=statistics))
    for feed, expected in zip(feeds, first, strict=True):
        np.testing.assert_array_equal(run(model, feed)["y"], expected)


def test_nothing_to_strip_and_idempotent() -> None:
    model = qdq.model(NET)
    assert strip(model).changed == 0
    insert(model, fuse=True)
    strip(model)
    before = to_proto(model).SerializeToString(deterministic=True)
    report = strip(model)
    assert report.changed == 0 and to_proto(model).SerializeToString(deterministic=True) == before


def test_the_card_goes_too() -> None:
    model = qdq.model(NET)
    model.set_metadata("onnxq.card", "{}")
    model.set_metadata("author", "me")
    strip(model)
    assert model.metadata == {"author": "me"}


def test_an_image_that_is_never_negative_gets_no_relu() -> None:
    # Its zero point is 0 too, but there was no activation in front of it.
    model = qdq.model(NET)
    insert(model, context(model, feeds=qdq.feeds(model, low=0.0, high=1.0)), fuse=True)
    strip(model)
    assert ops(model).count("Relu") == 1 and ops(model)[0] == "Conv"


def test_outputs_keep_their_names() -> None:
    model = qdq.model(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w> { [c] t = Conv(x, w) y = Relu(t) }"
    )
    insert(model, fuse=True)
    assert ops(model) == [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
    strip(model)
    assert ops(model) == ["Conv", "Relu", "Identity"] and model.graph.outputs[0].name == "y"


# What other tools write

FOREIGN = """g (float[1,4] x) => (float[1,4] y)
<float s = {{0.1}}, {kind} z = {{{zero}}}, float t = {{{scale}}}, float[4,4] w>
{{ [mm] m = MatMul(x, w) [q] a = QuantizeLinear(m, t, z) [dq] b = DequantizeLinear(a, t, z) [mm2] y = MatMul(b, w) }}"""


@pytest.mark.parametrize(
    ("kind", "zero", "scale", "expected"),
    [
        ("uint8", 0, 0.1, "Relu"),
        ("int8", -128, 0.1, "Relu"),
        ("uint16", 0, 0.001, "Relu"),
        ("uint8", 0, 6 / 255, "Clip"),
        ("uint8", 3, 0.1, None),
        ("int8", 0, 0.1, None),
        ("int8", 0, 6 / 255, None),
    ],
)
def test_dropped_activations_of_other_tools(kind: str, zero: int, scale: float, expected: str | None) -> None:
    model = qdq.model(FOREIGN.format(kind=kind, zero=zero, scale=scale), opset=21)
    feed = {"x": np.array([[-9.0, -1.0, 3.0, 12.0]], np.float32)}
    quantized = run(model, feed)["y"]
    strip(model)
    assert [o for o in ops(model) if o != "MatMul"] == ([expected] if expected else [])
    if expected == "Clip":
        clip = nodes_of(model, "Clip")[0]
        assert [float(constant_values(t)) for t in clip.inputs[1:]] == [0.0, 6.0]
    if expected:
        np.testing.assert_allclose(run(model, feed)["y"], quantized, atol=0.1)


def test_no_relu_behind_one_that_is_there() -> None:
    text = FOREIGN.format(kind="uint8", zero=0, scale=0.1).replace("MatMul(x, w)", "Relu(x)")
    model = qdq.model(text)
    strip(model)
    assert ops(model) == ["Relu", "MatMul"]


def test_several_readers_and_several_dequantizers_share_one_activation() -> None:
    model = qdq.model(
        """g (float[1,4] x) => (float[1,4] y, float[1,4] z) <float s = {0.1}, uint8 o = {0}, float[4,4] w>
        { m = MatMul(x, w) a = QuantizeLinear(m, s, o) b = DequantizeLinear(a, s, o) c = DequantizeLinear(a, s, o)
          y = Exp(b) z = Abs(c) }"""
    )
    strip(model)
    assert ops(model) == ["MatMul", "Relu", "Exp", "Abs"]


def test_float_readers_of_what_is_quantized_keep_the_raw_tensor() -> None:
    model = qdq.model(
        """g (float[1,4] x) => (float[1,4] y, float[1,4] z) <float s = {0.1}, uint8 o = {0}, float[4,4] w>
        { [m] m = MatMul(x, w) a = QuantizeLinear(m, s, o) b = DequantizeLinear(a, s, o)
          [y] y = Exp(b) [z] z = Abs(m) }"""
    )
    strip(model)
    assert reads(model, "z") == ["m"] and reads(model, "y") != ["m"]


def test_integers_made_elsewhere_stay() -> None:
    model = qdq.model(
        """g (uint8[1,4] x, float[1,4] f) => (float[1,4] y, float[1,4] z) <float s = {0.1}, uint8 o = {0}>
        { [alone] y = DequantizeLinear(x, s, o)
          q = QuantizeLinear(f, s, o) i = Identity(q) [moved] z = DequantizeLinear(i, s, o) }"""
    )
    report = strip(model)
    reason = "its input does not come from a QuantizeLinear: integers made elsewhere stay"
    assert reasons(report) == {"alone": reason, "moved": reason} and report.changed == 0


CONSTANTS = {
    "per tensor": ("int8[3,4] q, float s", "", 19),
    "zero point": ("uint8[3,4] q, float s, uint8 z", "", 19),
    "per channel": ("int8[3,4] q, float[3] s, int8[3] z", "axis=0", 19),
    "last axis by default": ("int8[3,4] q, float[4] s", "", 19),
    "negative axis": ("int8[2,3,4] q, float[3] s, int8[3] z", "axis=-2", 19),
    "int32": ("int32[4] q, float[4] s", "axis=0", 19),
    "scale of one element": ("int8[3,4] q, float[1] s, int8[1] z", "", 19),
    "int4": ("int4[3,4] q, float[3] s", "axis=0", 21),
    "blocks": ("int8[4,6] q, float[4,2] s, int8[4,2] z", "axis=1, block_size=3", 21),
    "ragged blocks": ("int8[4,5] q, float[4,2] s", "axis=1, block_size=3", 21),
    "float8": ("float8e4m3fn[4,4] q, float s", "", 21),
    "float16 scale": ("int8[3,4] q, float16 s", "", 19),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_constants(case: str) -> None:
    declared, attributes, opset = CONSTANTS[case]
    rng = np.random.default_rng(0)
    initializers, names = [], []
    for item in declared.split(", "):
        kind, name = item.split()
        kind, _, dims = kind.partition("[")
        shape = [int(d) for d in dims.rstrip("]").split(",")] if dims else []
        element = getattr(TensorProto, kind.upper())
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        low = 0 if kind.startswith("u") else -7
        values = rng.uniform(0.1, 1, shape) if name == "s" else rng.integers(low, 8, shape)
        initializers.append(numpy_helper.from_array(np.asarray(values).astype(dtype), name))
        names.append(name)
    options = {k: int(v) for k, v in (a.split("=") for a in attributes.split(", ") if a)}
    scale_type = next(t.data_type for t in initializers if t.name == "s")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("DequantizeLinear", names, ["w"], **options),
            onnx.helper.make_node("Identity", ["w"], ["y"]),
        ],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", scale_type, None)],
        initializers,
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {})[0]
    model = from_proto(proto)
    assert strip(model).changed == 1 and ops(model) == ["Identity"]
    found = constant_values(model.graph.nodes[0].inputs[0])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_constant_that_is_an_output_stays() -> None:
    model = qdq.model(
        """g (float[1] x) => (float[2] y, float[1] z) <int8[2] q = {1, 2}, float s = {0.5}>
        { [d] y = DequantizeLinear(q, s) z = Relu(x) }"""
    )
    report = strip(model)
    assert report.changed == 0 and "d" in reasons(report)


def test_int4_weights_survive_a_file_before() -> None:
    model = qdq.model(NET, opset=21)
    insert(model, context(model, weight_bits=4))
    model = copy_of(model)
    assert constant_values(dequantize_of(model, "project", 1).inputs[0]).dtype == int4
    expected = dequantized(model, "project")
    strip(model)
    np.testing.assert_array_equal(constant_values(node_of(model, "project").inputs[1]), expected)


def test_bodies_of_control_flow() -> None:
    model = qdq.model(
        """g (float[1,4] x, bool c) => (float[1,4] y) <float s = {0.1}, uint8 o = {0}, int8[4,4] w, float v = {0.01}>
        { a = QuantizeLinear(x, s, o)
          y = If(c) <
            then_branch = th () => (float[1,4] p) {
              tw = DequantizeLinear(w, v) tm = MatMul(x, tw)
              tq = QuantizeLinear(tm, s, o) [pair] td = DequantizeLinear(tq, s, o)
              p = Exp(td) },
            else_branch = el () => (float[1,4] r) { [outside] ed = DequantizeLinear(a, s, o) r = Neg(ed) }> }""",
        w=np.arange(-8, 8, dtype=np.int8).reshape(4, 4),
    )
    report = strip(model)
    branch = nodes_of(model, "If")[0]
    assert [n.op for n in branch.attrs["then_branch"].nodes] == ["MatMul", "Relu", "Exp"]
    assert reasons(report) == {"outside": "its QuantizeLinear is outside the body that it is in"}
    onnx.checker.check_model(to_proto(model), full_check=True)


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_models_made_by_onnxruntime_quantization(tmp_path: Path, activation: str, per_channel: bool) -> None:
    ortq = pytest.importorskip("onnxruntime.quantization")
    from bench_support.feed_reader import FeedReader

    model = qdq.model(NET, opset=13)
    # Wide ranges, so that ReLU6 really clips and its calibrated maximum is 6.
    feeds = qdq.feeds(model, 8, low=-12.0, high=12.0)

    onnx.save(to_proto(model), tmp_path / "float.onnx")
    ortq.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "qdq.onnx",
        FeedReader(feeds),
        quant_format=ortq.QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=ortq.QuantType.QUInt8 if activation == "uint8" else ortq.QuantType.QInt8,
        weight_type=ortq.QuantType.QInt8,
    )
    made = from_proto(onnx.load(tmp_path / "qdq.onnx"))
    assert "DequantizeLinear" in ops(made)
    strip(made)
    onnx.checker.check_model(to_proto(made), full_check=True)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(ops(made))
    assert ops(made).count("Relu") + ops(made).count("Clip") == 2
    clips = nodes_of(made, "Clip")
    assert len(clips) == 1  # ReLU6 as such, also where onnxruntime had dropped it
    for feed in feeds:
        assert sqnr(run(model, feed)["y"], run(made, feed)["y"]) > 30
    # And it can be quantized anew.
    report = insert(made, context(made, load_profile("onnxruntime-cpu"), feeds), fuse=True)
    assert report.changed > 8
