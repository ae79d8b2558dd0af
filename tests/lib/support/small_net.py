"""A small net with a layer of each common kind, and the check that a pass left valid ONNX."""

from __future__ import annotations

import onnx

from onnxq.graph.model import Model, to_proto

NET = """net (float[1,3,8,8] x) => (float[1,10] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2,
 float[8,8,1,1] w3, float[8] b3, float[10,8] w4, float[10] b4>
{
    [conv] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [relu] r = Relu(c)
    [depthwise] d = Conv<pads=[1,1,1,1], group=8>(r, w2, b2)
    [project] p = Conv(d, w3, b3)
    [add] a = Add(p, r)
    [pool] g = GlobalAveragePool(a)
    [flatten] f = Flatten(g)
    [fc] y = Gemm<transB=1>(f, w4, b4)
}"""


def check(model: Model) -> None:
    """Fails unless the model is valid ONNX."""
    onnx.checker.check_model(to_proto(model), full_check=True)
