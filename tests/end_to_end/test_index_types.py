"""Parameters that select positions, in int32 and in int64: the same valid models, bit for bit the same results."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.execution import runtime
from support.build import floating

# operator between two convolutions, its constants (T: the type), the channels that it leaves
SELECTIONS = {
    "Slice": ("m = Slice(r, b, e, a)", "T[2] b={0,1}, T[2] e={3,5}, T[2] a={1,2}", 3),
    "Slice of the first axes": ("m = Slice(r, b, e)", "T[3] b={0,0,1}, T[3] e={1,4,5}", 4),
    "Slice backwards": (
        "m = Slice(r, b, e, a, s)", "T[2] b={5,-1}, T[2] e={0,0}, T[2] a={2,-1}, T[2] s={-1,-1}", 4,
    ),
    "Slice to computed ends": (
        "h = Shape(r) t = Cast<to=KIND>(h) k = Gather(t, i) l = Sub(k, one) m = Slice(r, b, l, a)",
        "T[2] b={0,0}, int64[2] i={2,3}, T[2] one={1,1}, T[2] a={2,3}", 4,
    ),
    "Slice from computed starts": (
        "h = Shape(r) t = Cast<to=KIND>(h) k = Gather(t, i) l = Sub(k, five) m = Slice(r, l, e, a)",
        "T[2] e={6,6}, int64[2] i={2,3}, T[2] five={5,4}, T[2] a={2,3}", 4,
    ),
    "Gather": ("m = Gather<axis=1>(r, i)", "T[3] i={0,2,-1}", 3),
    "Gather of rows": ("m = Gather<axis=2>(r, i)", "T[3] i={0,-1,3}", 4),
    "GatherElements": ("m = GatherElements<axis=2>(r, i)", "T[1,4,1,1] i={1,0,5,2}", 4),
    "CumSum": ("m = CumSum(r, i)", "T i={2}", 4),
}  # fmt: skip


def network(name: str, kind: str, opset: int) -> onnx.ModelProto:
    nodes, constants, channels = SELECTIONS[name]
    element = {"int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64}[kind]
    made = floating.proto(
        f"""g (float[1,3,6,6] x) => (float[] y)
        <float[4,3,3,3] w, float[5,{channels},1,1] w2, {constants.replace("T", kind)}> {{
          c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) {nodes.replace("KIND", str(element))} y = Conv(m, w2) }}"""
    )
    made.opset_import[0].version = opset
    return made


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("profile", ["onnxq", "tensorrt"])
@pytest.mark.parametrize("name", SELECTIONS)
def test_int32_is_as_int64(name: str, profile: str, opset: int) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(4)]
    results = []
    for kind in ("int32", "int64"):
        made = onnxq.quantize(network(name, kind, opset), feeds, profile=profile, proof="none").model
        if profile != "onnxq":
            made = onnxq.lower(made, proof="none").model
        onnx.checker.check_model(made)
        results += [runtime.session(made, kernels=kernels).run(None, feeds[0])[0] for kernels in (True, False)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
