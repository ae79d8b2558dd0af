"""insert-qdq on activations: graph inputs and outputs, other readers, elementwise operators, shared scales."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.calibrate.statistics import Statistics
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model, to_proto
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import qparams_from_range
from support.build import qdq
from support.insertion import context, insert, observe, profile_of
from support.prove.nodes import dequantized, node_of, nodes_of, reads
from support.prove.values import sqnr
from support.runs import run
from support.small_net import check

U8 = QuantFormat(8, signed=False, symmetric=False)


# Graph inputs and outputs, other readers


def test_outputs_keep_their_names_and_readers_get_the_dequantized_tensor() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] t, float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [b] u = Conv(t, v) [e] y = Exp(t) }"""
    )
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)
    insert(model, context(model, feeds=[feed]))
    check(model)
    assert [o.name for o in model.graph.outputs] == ["t", "y"]
    assert node_of(model, "e").inputs[0] is model.graph.outputs[0]
    found = run(model, feed)
    assert sqnr(expected["t"], found["t"]) > 30 and len(np.unique(found["t"])) < 32
    np.testing.assert_allclose(found["y"], np.exp(found["t"]), rtol=1e-6)


def test_an_output_that_is_quantized_on_demand_only_stays_float() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] t, float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [b] y = Conv(t, v) }"""
    )
    insert(model, context(model, "tensorrt"))
    assert node_of(model, "a").outputs[0] is model.graph.outputs[0] and reads(model, "b")[0] == "DQ"


def test_a_graph_input_is_quantized_once_and_stays_float_for_float_readers() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z, float[1,2,4,4] e) <float[2,2,1,1] w>
        { [a] y = Conv(x, w) [b] z = Conv(x, w) [c] e = Exp(x) }"""
    )
    insert(model, context(model, "tensorrt"))
    assert len(nodes_of(model, "QuantizeLinear")) == 1
    assert node_of(model, "a").inputs[0] is node_of(model, "b").inputs[0]
    assert reads(model, "c") == ["x"] and model.graph.nodes[0].op == "QuantizeLinear"


def test_a_tensor_that_a_body_captures() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x, bool b) => (float[1,2,4,4] y) <float[2,2,1,1] w>
        { [conv] t = Conv(x, w)
          [branch] y = If(b) <then_branch = th () => (float[1,2,4,4] o) { [inner] o = Relu(t) },
                              else_branch = el () => (float[1,2,4,4] p) { p = Identity(x) }> }"""
    )
    feed = {"x": qdq.feeds(qdq.model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Relu(x) }"))[0]["x"]}
    stats = observe(model, [{**feed, "b": np.array(True)}][:0])
    for name in ("x", "t"):
        stats.tensor(name).update(np.array([-2, 2], np.float32))
    expected = run(model, {**feed, "b": np.array(True)})["y"]
    insert(model, context(model, statistics=stats))
    check(model)
    found = run(model, {**feed, "b": np.array(True)})["y"]
    assert sqnr(expected, found) > 25 and len(np.unique(found)) <= 256
    np.testing.assert_array_equal(run(model, {**feed, "b": np.array(False)})["y"], feed["x"])


def test_dynamic_batch() -> None:
    model = qdq.model(
        "g (float[N,3,H,W] x) => (float[N,4,H,W] y) <float[4,3,1,1] w, float[4] b> { [n] y = Conv(x, w, b) }"
    )
    feeds = qdq.feeds(model)
    insert(model, context(model, feeds=feeds))
    check(model)
    assert model.graph.outputs[0].shape == ["N", 4, "H", "W"]
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3, 7, 4)).astype(np.float32)
    whole = run(model, {"x": x})["y"]
    assert whole.shape == (5, 4, 7, 4)
    np.testing.assert_array_equal(whole[2:3], run(model, {"x": x[2:3]})["y"])


# Elementwise operators


@pytest.mark.parametrize("profile", ["acl", "ascend", "tensorrt", "fbgemm", "qnn", "onnxq"])
@pytest.mark.parametrize(
    "call", ["Add(t, x)", "Sum(t, x)", "Sum(t, x, x)", "Sum(t)", "Add(t, t)", "Mul(t, x)", "Sub(x, t)", "Add(t, k)"]
)
def test_elementwise(call: str, profile: str) -> None:
    model = qdq.model(
        f"""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float[2,1,1] k>
        {{ [c] t = Conv(x, w) [n] y = {call} }}"""
    )
    feeds = qdq.feeds(model)
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, profile, feeds))
    check(model)
    found = np.stack([run(model, f)["y"] for f in feeds])
    assert sqnr(expected, found) > 30


def test_constant_operand_of_an_addition() -> None:
    k = np.array([0.5, 1.0, 2.55], np.float32).reshape(3, 1, 1)
    model = qdq.model("g (float[1,3,4,4] x) => (float[1,3,4,4] y) <float[3,1,1] k> { [n] y = Add(x, k) }", k=k)
    insert(model, context(model, "qnn"))
    check(model)
    assert reads(model, "n") == ["DQ", "DQ"]
    np.testing.assert_allclose(dequantized(model, "n"), k, atol=0.01)


# Scales that are shared


def scales(model: Model) -> dict[str, float]:
    """Scale of each quantized activation by the tensor it came from."""
    found = {}
    for node in nodes_of(model, "QuantizeLinear"):
        name = node.name.removesuffix("_QuantizeLinear")
        zero_point = int(constant_values(node.inputs[2]))
        found[name] = (float(constant_values(node.inputs[1])), zero_point)
    return found


def test_concat_shares_one_scale_that_covers_all_inputs() -> None:
    profile = profile_of(
        '[graph]\nscheme = 3\nconcat = "shared"\n[activations]\nsign = "unsigned"\nsymmetric = false\n'
        "[ops]\nConv = {}\nConcat = {}\n"
    )
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float[2,2,1,1] v, float[2,4,1,1] u>
        { [a] p = Conv(x, w) [b] q = Conv(x, v) [cat] c = Concat<axis=1>(p, q) [d] y = Conv(c, u) }""",
        w=np.full((2, 2, 1, 1), 0.1, np.float32),
        v=np.full((2, 2, 1, 1), 7.0, np.float32),
    )
    stats = Statistics()
    for name, low, high in (("x", -1, 1), ("p", -3, 0.5), ("q", -0.5, 9)):  # nothing is needed for c itself
        stats.tensor(name).update(np.array([low, high], np.float32))
    insert(model, context(model, profile, statistics=stats))
    check(model)
    found = scales(model)
    expected = qparams_from_range(-3, 9, U8)
    assert found["p"] == found["q"] == found["c"] == (float(expected.scale), int(expected.zero_point)) != found["x"]


def test_max_pooling_keeps_the_codes() -> None:
    model = qdq.model(
        """g (float[1,2,4,4] x) => (float[1,2,2,2] y) <float[2,2,1,1] w, float[2,2,1,1] v>
        { [a] t = Conv(x, w) [pool] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t) [b] y = Conv(m, v) }"""
    )
    feed = qdq.feeds(model)[0]
    insert(model, context(model, feeds=[feed]))
    found = scales(model)
    assert found["t"] == found["m"]
    proto = to_proto(model)
    pooled = node_of(model, "pool").outputs[0].name
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in (pooled, "m_dequantized"))
    out = run(proto, feed)
    np.testing.assert_array_equal(out[pooled], out["m_dequantized"])  # the second pair changes nothing
