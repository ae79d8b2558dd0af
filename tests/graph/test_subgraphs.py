"""Bodies of If and Loop survive reading and writing, with the constants that they capture."""

import numpy as np
from onnx import helper, numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.fold_constants import FoldConstants
from support.build import floating
from support.prove.files import again, all_protos, message, same_values
from support.runs import run

CONTROL = """g (float[2,3] x, bool c) => (float[2,3] y) <float[3,3] w, float[3] b> {
    h = MatMul(x, w)
    i = If (c) <
        then_branch = t () => (float[2,3] p) { s = Add(h, b) p = MatMul(s, w) },
        else_branch = e () => (float[2,3] q) { k = Constant<value = float[3] {1, 2, 3}>() q = Mul(h, k) }
    >
    y = Add(i, b)
}"""


def test_subgraphs_round_trip_and_store_captured_constants_once():
    built = floating.proto(CONTROL)
    written = again(load(built))
    same_values(built, written)
    assert sorted(t.name for t in written.graph.initializer) == ["b", "w"]
    branches = [a.g for n in written.graph.node for a in n.attribute if a.HasField("g")]
    assert [[t.name for t in g.initializer] for g in branches] == [[], ["k"]]


def test_constants_that_only_branches_read_are_stored_once():
    text = CONTROL.replace("h = MatMul(x, w)", "h = Neg(x)").replace("q = Mul(h, k)", "r = Mul(h, k) q = MatMul(r, w)")
    built = floating.proto(text)
    written = again(load(built))
    same_values(built, written)
    stored = [t.name for g in all_protos(written.graph) for t in g.initializer]
    assert sorted(stored) == ["b", "k", "w"]


def test_branches_with_a_constant_of_the_same_name():
    built = floating.proto(
        """g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] p) <float[2] k = {1, 2}> { p = Add(x, k) },
                else_branch = e () => (float[2] q) <float[2] k = {3, 4}> { q = Add(x, k) }
            >
        }"""
    )
    same_values(built, again(load(built)))
    x = np.zeros(2, np.float32)
    written = again(load(built))
    assert run(written, {"x": x, "c": np.asarray(True)})["y"].tolist() == [1, 2]
    assert run(written, {"x": x, "c": np.asarray(False)})["y"].tolist() == [3, 4]


def test_loops_round_trip():
    built = floating.proto(
        """g (float[3] x) => (float[3] y, float[N,3] z) <float[3] w, int64 n = {3}, bool go = {1}> {
            y, z = Loop (n, go, x) <body = l (int64 k, bool d, float[3] v) => (bool f, float[3] u, float[3] s) {
                f = Identity(d)
                u = Add(v, w)
                s = Mul(u, w)
            }>
        }"""
    )
    same_values(built, again(load(built)))


def test_attributes_that_cannot_be_carried_are_refused():
    built = floating.proto("g (float[2] x) => (float[2] y) { [odd] y = custom.Thing(x) }")
    built.graph.node[0].attribute.append(helper.make_attribute("shape", helper.make_tensor_type_proto(1, [2])))
    assert message(built) == "model: node odd has attribute shape of type TYPE_PROTO, which onnxq does not support"
    inner = floating.proto(CONTROL)
    node = inner.graph.node[1].attribute[0].g.node[0]
    node.attribute.append(helper.make_attribute("many", [numpy_helper.from_array(np.ones(1))]))
    assert "attribute many of type TENSORS" in message(inner)


def test_sequences_are_carried():
    text = """g (seq(float[N]) x, bool c) => (seq(float[N]) y) <float[2] w> {
        y = If (c) <
            then_branch = t () => (seq(float[N]) a) { b = SequenceInsert(x, w) a = Identity(b) },
            else_branch = e () => (seq(float[N]) d) { d = SequenceConstruct(w, w) }
        >
    }"""
    source = load(floating.proto(text))
    pipeline.run(source, [FoldConstants(), EliminateIdentity()], PassContext(source))
    written = again(source)
    for c, count in ((True, 2), (False, 2)):
        assert len(run(written, {"x": [np.ones(1, np.float32)], "c": np.asarray(c)})["y"]) == count
