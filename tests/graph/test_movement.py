"""DequantizeLinears of int8 that onnxruntime would move: what is written such that it loads, and what stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from onnxq import pipeline, quantize
from onnxq.context import PassContext
from onnxq.graph.model import load, to_proto
from onnxq.passes.convert_opset import ConvertOpset
from onnxq.passes.eliminate_identity import EliminateIdentity
from support.build import floating

MOVERS = {
    "MaxPool": "y = MaxPool<kernel_shape=[2,2]>(r)",
    "towards the end": "t = Transpose<perm=[0,2,3,1]>(r) y = Erf(t)",
    "Reshape": "m = Reshape(r, s) y = Erf(m)",
    "Unsqueeze": "m = Unsqueeze(r, a) y = Sigmoid(m)",
    "Slice": "m = Slice(r, a, e, a) y = Erf(m)",
    "behind what vanishes": "n = Identity(r) m = MaxPool<kernel_shape=[2,2]>(n) y = Erf(m)",
    "several readers": "t = Transpose<perm=[0,1,3,2]>(r) m = Erf(t) n = Sigmoid(r) y = Concat<axis=1>(m, n)",
    "in a branch": "y = If(b) <then_branch = u () => (float[A,B,C,D] i) { i = Transpose<perm=[0,2,3,1]>(r) }, "
    "else_branch = w () => (float[A,B,C,D] j) { j = Transpose<perm=[0,3,2,1]>(r) }>",
    "nothing moves": "m = Erf(r) y = Sigmoid(m)",
}
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
FEED = {"x": np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)}


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    """The output without optimizations, and with."""
    found = []
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        found.append(ort.InferenceSession(model.SerializeToString(), options).run(None, FEED)[0])
    return found


def dequantized(mover: str, zero: int, opset: int, output: str = "") -> onnx.ModelProto:
    """x in int8 with this zero point, read by the nodes of `mover`."""
    more, inside = f", float[N,3,6,6] {output}" if output else "", MOVERS[mover]
    if output:
        inside += f" {output} = Identity(r)" if output != "r" else ""
    constants = {
        "int64[2] s = {3, -1}": "s)",
        "int64[1] a = {0}": " a",
        "int64[1] e = {1}": " e,",
        "bool b = {1}": "(b)",
    }
    used = "".join(f", {text}" for text, mark in constants.items() if mark in inside)
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]> g (float[1,3,6,6] x) => (float y{more})
        <float k = {{0.05}}, int8 z = {{{zero}}}{used}>
        {{ q = QuantizeLinear(x, k, z) r = DequantizeLinear(q, k, z) {inside} }}"""
    )


@pytest.mark.parametrize("zero", [0, -7])
@pytest.mark.parametrize("mover", MOVERS)
@pytest.mark.parametrize("version", [21, 23])
def test_raising_the_opset_makes_nothing_that_is_rejected(mover: str, zero: int, version: int) -> None:
    before = dequantized(mover, zero, 13)
    model = load(before)
    pipeline.run(model, [ConvertOpset(version)], PassContext(model))
    after = to_proto(model)
    for made in outputs(after):
        np.testing.assert_allclose(made, outputs(before)[0], atol=1e-5)
    kept = any(n.op_type == "Max" for n in after.graph.node)
    assert kept == (zero != 0 and mover != "nothing moves")
    pipeline.run(model, [EliminateIdentity()], PassContext(model))
    after = to_proto(model)
    outputs(after)
    assert any(n.op_type == "Max" for n in after.graph.node) == kept


@pytest.mark.parametrize("output", ["r", "o"])
def test_what_is_an_output_too_stays_one(output: str) -> None:
    model = load(dequantized("MaxPool", 5, 13, output))
    pipeline.run(model, [ConvertOpset(21)], PassContext(model))
    after = to_proto(model)
    assert [o.name for o in after.graph.output] == ["y", output]
    assert [n.op_type for n in after.graph.node if n.output[0] == "r"] == ["DequantizeLinear"]
    outputs(after)


@pytest.mark.parametrize("opset", [13, 21, 23])
@pytest.mark.parametrize("mover", MOVERS)
def test_asymmetric_int8_of_a_profile(mover: str, opset: int) -> None:
    """Profile acl, whose activations are int8 with a zero point; below opset 21 nothing has to be added."""
    constants = {
        "int64[2] s = {4, -1}": "s)",
        "int64[1] a = {0}": " a",
        "int64[1] e = {1}": " e,",
        "bool b = {1}": "(b)",
    }
    used = "".join(f", {text}" for text, mark in constants.items() if mark in MOVERS[mover])
    model = floating.proto(
        f"""g (float[1,3,6,6] x) => (float y) <float[4,3,1,1] w{used}>
        {{ c = Conv(x, w) r = Relu(c) {MOVERS[mover]} }}""",
        opset,
    )
    product = quantize(model, [FEED], profile="acl", qdq=True, proof="none").model
    plain, default = outputs(product)
    np.testing.assert_allclose(default, plain, atol=0.02 * np.abs(plain).max())
    assert not (opset < 21 and any(n.op_type == "Max" for n in product.graph.node))
