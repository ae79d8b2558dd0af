"""Shapes behind operators that ONNX's inference does not know: checked against what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.execution import runtime
from onnxq.graph.model import load
from onnxq.graph.shapes import static_shape
from onnxq.graph.walk import all_graphs
from support.build import floating

MS = "com.microsoft"
# body (reads x, float[2,6,8], and v, float[8], makes y); constants
KNOWN = [
    ("y = com.microsoft.Gelu(x)", ""),
    ("y = com.microsoft.FastGelu(x, v)", ""),
    ("y = com.microsoft.QuickGelu(x)", ""),
    ("y = com.microsoft.BiasGelu(x, v)", ""),
    ("y = com.microsoft.FusedMatMul<alpha = 0.5>(x, w)", "float[8,3] w"),
    ("y = SimplifiedLayerNormalization(x, v)", ""),
    ("y, a, b = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>(x, x, v, v)", ""),
    ("a, , , y = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>(x, x, v, v)", ""),
    ("y, , , b = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.00001>(x, x, v)", ""),
    (
        "f = Flatten(x) y = com.microsoft.FusedGemm<transB = 1, activation = \"Relu\">(f, w, b)",
        "float[5,48] w, float[5] b",
    ),
    ("y = com.microsoft.FusedConv<pads = [1, 1], activation = \"Relu\">(x, w)", "float[4,6,3] w"),
    (
        "q = com.microsoft.QuantizeLinear(x, s, z) y = com.microsoft.DequantizeLinear(q, s, z)",
        "float s = {0.1}, uint8 z = {3}",
    ),
    ("q = QuantizeLinear(x, s, z) o = com.microsoft.QLinearAdd(q, s, z, c, s, z, s, z) y = DequantizeLinear(o, s, z)",
     "float s = {0.1}, uint8 z = {3}, uint8[8] c"),
    ("r = Unsqueeze(x, k) y = MeanVarianceNormalization(r)", "int64[1] k = {0}"),
    ("y = GroupNormalization<num_groups = 2>(x, w, w)", "float[6] w"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants"), KNOWN)
def test_shapes_and_types_are_those_of_onnxruntime(body: str, constants: str) -> None:
    opset = 21 if "GroupNorm" in body else 17
    text = (
        f"g (float[2,6,8] x) => (float total) <float[8] v, {constants}> {{ {body} total = ReduceSum<keepdims=0>(y) }}"
    )
    proto = floating.proto(text.replace(", >", ">"), opset=opset)
    proto.opset_import.append(onnx.helper.make_opsetid(MS, 1))
    model = load(proto)
    tensor = model.graph.tensors()["y"]
    proto.graph.output.append(onnx.ValueInfoProto(name="y"))
    value = runtime.session(proto).run(["y"], {"x": np.ones((2, 6, 8), np.float32)})[0]
    assert static_shape(tensor) == value.shape and np.dtype(tensor.dtype) == value.dtype
    assert [n.op for n in model.graph.nodes] == [n.op_type for n in proto.graph.node]  # the graph is not changed


def test_dynamic_dimensions_keep_their_names_behind_a_twin_and_in_subgraphs() -> None:
    text = """g (float[N,4,H,W] x, bool c) => (float y) <float[4] s> {
        a = GroupNormalization<num_groups = 2>(x, s, s)
        b = If(c) <then_branch = t () => (float[N,4,H,W] u) { p = com.microsoft.Gelu(a) u = Neg(p) },
                   else_branch = e () => (float[N,4,H,W] v) { v = Relu(a) }> y = ReduceSum<keepdims=0>(b) }"""
    proto = floating.proto(text, opset=21)
    proto.opset_import.append(onnx.helper.make_opsetid(MS, 1))
    outer, inner, _ = all_graphs(load(proto).graph)
    assert outer.tensors()["a"].shape == inner.tensors()["p"].shape == ["N", 4, "H", "W"]
