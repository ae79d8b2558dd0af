"""The findings of the pre-flight check, and the small models it is tested on."""

from collections.abc import Callable

import numpy as np

from onnxq.check.findings import Finding
from onnxq.graph.model import Model
from onnxq.profiles.schema import Profile
from support.build import qdq
from support.insertion import context, insert

CONV = """g (float[1,4,6,6] x) => (float[1,8,6,6] y) <float[8,4,1,1] w, float[8] b>
    { [c] a = Conv(x, w, b) [r] y = Relu(a) }"""
RESIDUAL = """g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w1, float[4] b1, float[4,4,1,1] w2, float[4] b2>
    { [c1] a = Conv(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv(r, w2, b2) [add] s = Add(c, x) [r2] y = Relu(s) }"""
BLOCKS = """g (float[1,4,6,6] x) => (float[1,5] y)
    <float[8,4,1,1] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,8,1,1] w3, float[8] b3, float[5,16] w4,
     float[5] b4>
    { [c1] a = Conv(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv<group=8, pads=[1,1,1,1]>(r, w2, b2)
      [r2] d = Relu(c) [c3] e = Conv(d, w3, b3) [add] s = Add(e, r) [r3] t = Relu(s) [cat] u = Concat<axis=1>(t, d)
      [mp] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(u) [gap] p = GlobalAveragePool(m) [flat] q = Flatten(p)
      [fc] y = Gemm<transB=1>(q, w4, b4) }"""


def quantized(profile: str | Profile, text: str = CONV, opset: int = 13, **settings) -> Model:
    """A net of ONNX text with the Q/DQ that a profile wants."""
    model = qdq.model(text, opset)
    insert(model, context(model, profile, **settings), fuse=True)
    return model


def of(findings: list[Finding], node: str) -> list[Finding]:
    """The findings of one node."""
    return [f for f in findings if f.node == node]


def only(findings: list[Finding], severity: str, node: str, problem: str) -> Finding:
    """The one finding of this node and severity whose problem holds the text; every text is one line."""
    assert all("\n" not in f.problem + f.fix for f in findings)
    found = [f for f in findings if f.severity == severity and f.node == node and problem in f.problem]
    assert len(found) == 1, [str(f) for f in findings]
    assert found[0].fix
    return found[0]


def problems(findings: list[Finding], *, notes: bool = False) -> list[str]:
    """The findings as text, without notes unless asked for."""
    return [str(f) for f in findings if notes or f.severity != "note"]


def constant(model: Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Model:
    """The model with the values of one constant changed."""
    tensor = model.graph.tensors()[name]
    tensor.values = np.asarray(change(np.array(tensor.values)))
    return model
