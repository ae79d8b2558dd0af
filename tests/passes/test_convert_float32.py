"""convert-float32: half-precision models compute in float32, and their borders stay what they were."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load, to_proto
from onnxq.graph.shapes import element_type
from onnxq.graph.walk import all_graphs
from onnxq.passes.convert_float32 import ConvertFloat32
from support.build import floating
from support.prove.passes import prove
from support.prove.values import assert_close, constant
from support.runs import run

PASS = ConvertFloat32()
HALF = 4e-3  # a few roundings of float16

NET = """g (float16[1,4,7,7] x) => (float16[1,6,5,5] y) <float16[6,4,3,3] w, float16[6] b, float16 six> {
    h = Conv(x, w, b)
    i = Clip(h, "", six)
    y = Relu(i)
}"""


def narrow(source) -> set[str]:
    """Tensors of the two types."""
    return {
        t.name
        for g in all_graphs(source.graph)
        for t in g.tensors().values()
        if element_type(t) in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    }


def test_the_inside_is_float32_and_the_borders_are_not():
    proof = prove(NET, PASS, tolerance=HALF, six=2)
    assert proof.ops == {"Cast": 2, "Conv": 1, "Clip": 1, "Relu": 1}
    assert narrow(proof.model) == {"x", "y"}
    assert constant(proof.node("h").inputs[1]).dtype == np.float32
    assert constant(proof.node("i").inputs[2]).dtype == np.float32


def test_without_keep_io_the_borders_change_too():
    source = floating.model(NET, six=2)
    feed = floating.feeds(source, 1)[0]
    before = run(source, feed)["y"]
    report = pipeline.run(source, [ConvertFloat32(keep_io=False)], PassContext(source))[0]
    assert report.changed > 0
    assert {n.op for n in source.graph.nodes} == {"Conv", "Clip", "Relu"}
    assert narrow(source) == set()
    after = run(source, {"x": feed["x"].astype(np.float32)})["y"]
    assert after.dtype == np.float32
    assert_close(before.astype(np.float32), after, HALF)
    assert pipeline.run(source, [ConvertFloat32(keep_io=False)], PassContext(source))[0].changed == 0
    assert not ConvertFloat32(keep_io=False).preserves_values
    assert PASS.preserves_values


def test_a_float32_model_is_left_alone():
    proof = prove("g (float[2] x) => (float[2] y) <float[2] w> { h = Add(x, w) y = Relu(h) }", PASS)
    assert proof.changed == 0


def test_double_and_integers_are_left_alone():
    text = "g (double[2] x, int64[2] k) => (double[2] y, int64[2] z) <double[2] w> { y = Add(x, w) z = Add(k, k) }"
    assert prove(text, PASS).changed == 0


def test_bfloat16():
    source = floating.model(NET.replace("float16", "bfloat16"), opset=22, ir=10, six=2)
    weight = constant(source.graph.nodes[0].inputs[1])
    assert weight.dtype == ml_dtypes.bfloat16
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed > 0
    assert narrow(source) == {"x", "y"}
    assert np.array_equal(constant(source.graph.nodes[1].inputs[1]), weight.astype(np.float32))
    onnx.checker.check_model(to_proto(source), full_check=True)
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed == 0


def test_types_in_attributes():
    proof = prove(
        """g (float16[2,3] x) => (float16[2,3] y) <int64[2] s = {2, 3}> {
            a = Cast<to = 1>(x)
            b = Cast<to = 10>(a)
            c = ConstantOfShape<value = float16[1] {15872}>(s)
            e = EyeLike<dtype = 10>(x)
            d = Add(b, c)
            y = Add(d, e)
        }""",
        PASS,
        tolerance=HALF,
    )
    assert narrow(proof.model) == {"x", "y"}


def test_an_output_that_is_read_inside_too():
    proof = prove("g (float16[2] x) => (float16[2] y, float16[2] z) { y = Neg(x) z = Exp(y) }", PASS, tolerance=HALF)
    assert proof.ops == {"Neg": 1, "Exp": 1, "Cast": 3}
    assert proof.node("z").inputs[0] is proof.node("y").outputs[0]


def test_an_input_that_is_an_output():
    built = floating.proto("g (float16[2] x) => (float16[2] x, float16[2] y) { y = Neg(x) }")
    source = load(built)
    pipeline.run(source, [PASS], PassContext(source))
    assert [t.name for t in source.graph.outputs] == ["x", "y"]
    assert narrow(source) == {"x", "y"}


def test_mixed_precision():
    proof = prove(
        """g (float[2,3] x) => (float[2,4] y) <float16[3,4] w, float[4] b> {
            h = Cast<to = 10>(x)
            m = MatMul(h, w)
            f = Cast<to = 1>(m)
            y = Add(f, b)
        }""",
        PASS,
        tolerance=HALF,
    )
    assert narrow(proof.model) == set()
    assert proof.changed > 0


def test_subgraphs_loops_and_what_they_capture():
    proof = prove(
        """g (float16[3] x, bool c) => (float16[3] y) <float16[3] w, int64 n = {3}, bool go = {1}> {
            h = Mul(x, w)
            i = If (c) <
                then_branch = t () => (float16[3] a) { a = Add(h, w) },
                else_branch = e () => (float16[3] b) { b = Identity(h) }
            >
            y = Loop (n, go, i) <body = l (int64 k, bool d, float16[3] v) => (bool f, float16[3] u) {
                f = Identity(d)
                u = Add(v, w)
            }>
        }""",
        PASS,
        tolerance=HALF,
    )
    assert narrow(proof.model) == {"x", "y"}
    assert proof.ops["Cast"] == 2


def test_operators_of_other_domains_keep_their_types():
    text = """g (float16[2] x) => (float16[2] y) <float16[2] w> {
        a = Neg(x)
        b = custom.Thing(a, w)
        c = Add(b, w)
        y = custom.Thing(c, w)
    }"""
    source = load(floating.proto(text))
    for tensor in (
        source.graph.nodes[1].outputs[0],
        source.graph.nodes[2].outputs[0],
        source.graph.nodes[0].outputs[0],
    ):
        tensor.dtype, tensor.shape = np.dtype(np.float16), [2]
    pipeline.run(source, [PASS], PassContext(source))
    by_name = {n.name: n for n in source.graph.nodes}
    for name in ("b", "y"):
        assert {element_type(t) for t in (*by_name[name].inputs, *by_name[name].outputs)} == {TensorProto.FLOAT16}
    for name in ("a", "c"):
        assert {element_type(t) for t in (*by_name[name].inputs, *by_name[name].outputs)} == {TensorProto.FLOAT}
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed == 0


def test_quantized_models_in_half_precision():
    proof = prove(
        """g (float16[2,3] x) => (float16[2,4] y) <float16 s, int8 z = {0}, int8[3,4] q, float16 t> {
            a = QuantizeLinear(x, s, z)
            b = DequantizeLinear(a, s, z)
            w = DequantizeLinear(q, t, z)
            y = MatMul(b, w)
        }""",
        PASS,
        tolerance=0.03,
        opset=19,
        ir=9,
        q=3,
        s=0.02,
        t=0.1,
    )
    assert narrow(proof.model) == {"x", "y"}


@pytest.mark.parametrize("keep_io", [True, False])
def test_the_option_is_printed(keep_io):
    assert str(ConvertFloat32(keep_io=keep_io)) == ("convert-float32" if keep_io else "convert-float32{keep_io=false}")


def test_resnet20_in_half_precision(shared):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    wide = onnx.load(shared / "models" / "resnet20_cifar10.onnx")
    half = load(convert_float_to_float16(onnx.shape_inference.infer_shapes(wide)))
    feed = floating.feeds(half, 1)[0]
    pipeline.run(half, [PASS], PassContext(half))
    assert narrow(half) == {"input", "logits"}
    expected = run(wide, {"input": feed["input"].astype(np.float32)})["logits"]
    assert_close(expected.astype(np.float16), run(half, feed)["logits"], 0.01)
