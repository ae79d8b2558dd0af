"""The check of a QDQ model graph by graph: its bodies, integers from elsewhere, and Q/DQ that stays."""

import numpy as np
import onnxruntime as ort
import pytest

from onnxq.check.target import check
from onnxq.graph.model import to_proto
from support.build import qdq
from support.findings import of, only


def test_integers_made_elsewhere_are_inputs() -> None:
    text = """g (int8[1,4,6,6] x) => (float[1,8,6,6] y) <int8[8,4,1,1] w, float s = {0.1}, int8 z = {0}>
        { [dq] d = DequantizeLinear(x, s, z) [wd] v = DequantizeLinear(w, s, z) [c] y = Conv(d, v) }"""
    model = qdq.model(text, w=np.ones((8, 4, 1, 1), np.int8))
    assert [f.problem for f in of(check(model, "openvino"), "c") if "float" in f.problem] == []


def test_qdq_that_cannot_be_removed() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,8,6,6] y) <int8[8,4,1,1] w, float[3] s = {1, 1, 1}, float sx = {0.1}>
        { [q] q = QuantizeLinear(x, sx) [dq] d = DequantizeLinear(q, sx) [wd] v = DequantizeLinear<axis=0>(w, s)
          [c] y = Conv(d, v) }"""
    found = check(qdq.model(text, w=np.ones((8, 4, 1, 1), np.int8)), "openvino")
    only(found, "reject", "", "its Q/DQ cannot be removed")


def test_bodies_are_compared_too() -> None:
    text = """g (float[1,4,6,6] x, bool k) => (float[1,4,6,6] y) <float[4,4,1,1] w, float s = {0.1}, int8 z = {0}>
        { [dead] u = If (k) <then_branch = a () => (float[1,4,6,6] e) { e = Relu(x) },
                             else_branch = b () => (float[1,4,6,6] f) { f = Neg(x) }>
          [if] y = If (k) <then_branch = yes () => (float[1,4,6,6] p)
                             { [q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, s, z) [in] p = Conv(d, w) },
                           else_branch = no () => (float[1,4,6,6] n) { n = Relu(x) }> }"""
    only(check(qdq.model(text), "tensorrt"), "remark", "in", "its input is quantized, its weight is not")


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(("kind", "point"), [("int32", False), ("int8", False), ("int8", True), ("uint8", True)])
@pytest.mark.parametrize(
    "reader", ["MaxPool<kernel_shape=[2,2]>", "Transpose", "Flatten", "Relu"], ids=lambda text: text.split("<")[0]
)
def test_what_onnxruntime_moves_and_breaks(reader: str, kind: str, point: bool, opset: int) -> None:
    text = f"""g ({kind}[1,4,6,6] x) => (float[] y) <float s = {{0.1}}{f", {kind} z = {{0}}" if point else ""}>
        {{ [dq] d = DequantizeLinear(x, s{", z" if point else ""}) [op] m = {reader}(d) y = Neg(m) }}"""
    model = qdq.model(text, opset=opset)
    found = [f for f in of(check(model, "onnxruntime-cpu"), "dq") if "moves this DequantizeLinear" in f.problem]
    feed = {"x": np.random.default_rng(0).integers(0 if kind == "uint8" else -100, 100, (1, 4, 6, 6)).astype(kind)}
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        try:
            results.append(ort.InferenceSession(to_proto(model).SerializeToString(), options).run(None, feed)[0])
        except Exception:  # refused: of several types, after the optimization
            results.append(None)
    good = results[1] is not None and np.array_equal(*results)
    assert bool(found) == (not good)
    assert [f for f in check(model, "snpe") if "moves this DequantizeLinear" in f.problem] == []
