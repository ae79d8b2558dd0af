"""Outputs and inputs of any type and rank, empty tensors and subgraphs, through quantizing, lowering and measuring."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxq
from onnxq.check.target import check
from onnxq.execution.benchmark import bench
from onnxq.inspection import inspect_model
from onnxq.measure.compare import compare
from onnxq.measure.consistency import optimization_consistency
from onnxq.profiles.schema import builtin_names
from support.build import Feed, qdq

LAYERS = "<float[4,3,1,1] w, float[4,4,1,1] v> { c = Conv(x, w) d = Conv(c, v)"
IMAGE = "float[1,3,5,5] x"
MODELS = {
    "a 0-d output": f"g ({IMAGE}) => (float y) {LAYERS} y = ReduceMean<keepdims=0>(d) }}",
    "0-d codes in the middle": (
        f"g ({IMAGE}) => (float y) {LAYERS} e = ReduceMean<keepdims=0>(d) f = Sigmoid(e) y = Mul(f, f) }}"
    ),
    "a dot product": (
        "g (float[6] x) => (float y) <float[6,4] w, float[4] v> { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }"
    ),
    "a 0-d input": f"g ({IMAGE}, float s) => (float[1,4,5,5] y, float z) {LAYERS} y = Mul(d, s) z = Relu(s) }}",
    "0-d of a free batch": (
        f"g (float[N,3,5,5] x) => (float[N] m, float y) {LAYERS} m = ReduceMean<axes=[1,2,3], keepdims=0>(d) "
        "y = ReduceMax<keepdims=0>(d) }"
    ),
    "booleans": f"g ({IMAGE}) => (float[1,4,5,5] d, bool[1,4,5,5] y) {LAYERS} y = Greater(d, c) }}",
    "indices": f"g ({IMAGE}) => (float[1,4,5,5] d, int64[4,n] y) {LAYERS} r = Relu(d) y = NonZero(r) }}",
    "texts": f"g ({IMAGE}, string[2] t) => (float[1,4,5,5] d, string[2] y) {LAYERS} y = Identity(t) }}",
    "no elements": (
        f"g ({IMAGE}) => (float[1,4,5,5] d, float[1,0,5,5] y) <float[4,3,1,1] w, float[4,4,1,1] v, int64[1] z = {{0}}, "
        "int64[1] one = {1}> { c = Conv(x, w) d = Conv(c, v) y = Slice(d, z, z, one) }"
    ),
    "a sequence": (
        f"g ({IMAGE}) => (float[1,4,5,5] d, seq(float[1,1,5,5]) y) {LAYERS} y = SplitToSequence<axis=1>(d) }}"
    ),
    "a sequence in the middle": (
        f"g ({IMAGE}) => (float[1,8,5,5] y) {LAYERS} s = SequenceConstruct(d, c) y = ConcatFromSequence<axis=1>(s) }}"
    ),
    "a sequence of a branch": (
        f"g ({IMAGE}, bool t) => (float[1,4,5,5] d, seq(float[1,4,5,5]) q) {LAYERS} "
        "q = If(t) <then_branch = a () => (seq(float[1,4,5,5]) one) { one = SequenceConstruct(c) }, "
        "else_branch = b () => (seq(float[1,4,5,5]) two) { two = SequenceConstruct(c, d) }> }"
    ),
    "layers inside a branch": (
        f"g ({IMAGE}, bool t) => (float[1,4,5,5] y) {LAYERS} e = If(t) <then_branch = a () => (float[1,4,5,5] f) "
        "{ f = Conv(d, v) }, else_branch = b () => (float[1,4,5,5] h) { h = Relu(d) }> y = Conv(e, v) }"
    ),
    "a scan": (
        f"g ({IMAGE}) => (float[1,4,5,5] y, float[4,5,5] last) {LAYERS} z = Squeeze(c) "
        "last, o = Scan<num_scan_inputs=1, body = b (float[4,5,5] s, float[4,5,5] e) => (float[4,5,5] t, float[4,5,5] "
        "u) { t = Add(s, e) u = Relu(t) }>(z, d) y = Conv(o, v) }"
    ),
}
RANDOM = {
    "RandomNormal": "rn = RandomNormal<shape=[1,4,5,5], scale=0.3>() e = Add(c, rn)",
    "RandomNormalLike": "rn = RandomNormalLike<scale=0.3>(c) e = Add(c, rn)",
    "RandomUniform": "rn = RandomUniform<shape=[1,4,5,5]>() r = Relu(rn) e = Mul(c, r)",
    "RandomUniformLike": "rn = RandomUniformLike<low=0.5>(c) e = Mul(c, rn)",
    "Bernoulli": "s = Sigmoid(c) rn = Bernoulli(s) e = Mul(c, rn)",
    "Dropout": "e, rn = Dropout(c, ratio, train)",
}
MULTINOMIAL = (
    f"g ({IMAGE}) => (float[1,4,5,5] d, int32[4,3] y) {LAYERS} s = Squeeze(d) f = Flatten(s) "
    "y = Multinomial<sample_size=3>(f) }"
)


def feeds(proto: onnx.ModelProto, count: int = 4) -> list[Feed]:
    """Samples of every kind of input."""
    rng = np.random.default_rng(5)

    def value(info: onnx.ValueInfoProto, index: int) -> NDArray:
        kind = info.type.tensor_type
        shape = [d.dim_value or 1 for d in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.STRING:
            return np.array(["one", "two"])
        if kind.elem_type == onnx.TensorProto.BOOL:
            return np.array(index % 2 == 0)
        return np.asarray(rng.normal(size=shape), np.float32)

    return [{i.name: value(i, k) for i in proto.graph.input} for k in range(count)]


def random_model(op: str, further: str = "") -> onnx.ModelProto:
    text = f"g ({IMAGE}) => (float[1,4,5,5] y{further}) <float[4,3,1,1] w, float[4,4,1,1] v"
    text += ", float ratio = {0.25}, bool train> {" if op == "Dropout" else "> {"
    values = {"train": True} if op == "Dropout" else {}
    return qdq.proto(f"{text} c = Conv(x, w) {RANDOM[op]} y = Conv(e, v) }}", 17, **values)


SHARE_A_WEIGHT = ("layers inside a branch", "a scan")
KINDS = [pytest.param(k, marks=[pytest.mark.shared_weight] if k in SHARE_A_WEIGHT else []) for k in MODELS]


@pytest.mark.parametrize("profile", ["onnxruntime-cuda", "onnxq"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_handles_it(kind: str, profile: str) -> None:
    source = qdq.proto(MODELS[kind], 18 if "last" in kind else 17)
    samples = feeds(source)
    made = onnxq.quantize(source, samples, profile=profile, qdq=True, threads=1)
    lowered = onnxq.lower(made.model)
    for bodies in (False, True):
        checked = onnxq.verify(made.model, lowered.model, samples, bodies=bodies, threads=1)
        assert checked.ok and checked.layers
    found = compare(source, made.model, samples, isolated=True, threads=1)
    assert all(row.sqnr_db > 20 for row in found.rows)
    assert optimization_consistency(made.model, samples, threads=1)
    result = onnxq.evaluate(lowered.model, samples, against=source, threads=1)
    assert all(o.sqnr_db is None or o.sqnr_db > 18 for o in result.against.outputs.values() if o.max_abs_error)
    assert bench(lowered.model, [source], data=samples, repeats=1, per_layer=True, threads=1).layers


@pytest.mark.parametrize("kind", ["a 0-d output", "no elements", "a sequence", "texts"])
def test_sensitivities_are_finite(kind: str) -> None:
    source = qdq.proto(MODELS[kind], 17)
    found = onnxq.measure_sensitivity(source, feeds(source), profile="onnxq", threads=1)
    assert found.layers


def test_a_wrong_sequence_is_found() -> None:
    source = qdq.proto(MODELS["a sequence"], 17)
    samples = feeds(source)
    made = onnxq.quantize(source, samples, profile="onnxq", qdq=True, threads=1)
    broken = onnxq.lower(made.model).model
    node = next(n for n in broken.graph.node if n.op_type == "SplitToSequence")
    broken.graph.node.insert(
        list(broken.graph.node).index(node), onnx.helper.make_node("Neg", [node.input[0]], ["negative"], "negative")
    )
    node.input[0] = "negative"
    checked = onnxq.verify(made.model, broken, samples, threads=1)
    assert "y" in {layer.tensor for layer in checked.beyond}
    assert checked.outputs["y"].max_abs_error > 0.1


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "onnxq", "tensorrt"])
@pytest.mark.parametrize("op", RANDOM)
def test_random_numbers_are_the_same_in_both_models(op: str, profile: str) -> None:
    """Two models are measured with the same draws; what is written stays random."""
    source = random_model(op, ", bool[1,4,5,5] rn" if op == "Dropout" else ", float[1,4,5,5] rn")
    samples = feeds(source)
    made = onnxq.quantize(source, samples, profile=profile, qdq=True, threads=1)
    again = onnxq.quantize(source, samples, profile=profile, qdq=True, threads=2)
    assert list(made.model.graph.node) == list(again.model.graph.node)
    scales = [{t.name: t for t in q.model.graph.initializer} for q in (made, again)]
    assert scales[0] == scales[1]  # the same draws in calibration, whatever the number of threads
    lowered = onnxq.lower(made.model)
    assert onnxq.verify(made.model, lowered.model, samples, threads=1).ok
    assert all(r.sqnr_db > 20 for r in compare(source, made.model, samples, isolated=True, threads=1).rows)
    outputs = onnxq.evaluate(made.model, samples, against=source, threads=1).against.outputs
    assert outputs["y"].sqnr_db > 20
    for proto in (made.model, lowered.model):
        node = next(n for n in proto.graph.node if "rn" in n.output)
        assert not any(a.name == "seed" for a in node.attribute)
        session = onnxq.session(proto)
        first, second = (session.run(["rn"], samples[0])[0] for _ in range(2))
        assert op == "Bernoulli" or not np.array_equal(first, second)


@pytest.mark.parametrize("op", RANDOM)
def test_what_draws_random_numbers_can_be_checked_and_inspected(op: str) -> None:
    """Generators have no inputs."""
    source = random_model(op)
    for profile in builtin_names():
        assert all(finding.problem for finding in check(source, profile))
    assert {layer.op for layer in inspect_model(onnxq.load(source), None).layers} >= {"Conv"}


def test_sensitivities_say_that_they_contain_noise() -> None:
    said: list[str] = []
    source = random_model("RandomNormal")
    onnxq.measure_sensitivity(source, feeds(source), profile="onnxq", threads=1, say=said.append)
    assert [s for s in said if "random numbers" in s]


def test_draws_of_integers_pass_through() -> None:
    source = qdq.proto(MULTINOMIAL, 17)
    samples = feeds(source)
    made = onnxq.quantize(source, samples, profile="onnxq", qdq=True, threads=1)
    assert onnxq.verify(made.model, onnxq.lower(made.model).model, samples, threads=1).ok


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("d, k = Dropout(c)", ", bool[1,4,5,5] k"),
        ("d, k, i = LayerNormalization(c, one, zero)", ", float[1,4,5,1] k, float[1,4,5,1] i"),
        ("d, k = MaxPool<kernel_shape=[1,1]>(c)", ", int64[1,4,5,5] k"),
    ],
)
def test_further_outputs_of_a_node_that_has_an_integer_form(text: str, outputs: str) -> None:
    """Lowering leaves the node in float with the reason: its integer operator has one output."""
    source = qdq.proto(
        f"g ({IMAGE}) => (float[1,4,5,5] y{outputs}) <float[4,3,1,1] w, float[4,4,1,1] v, float[5] one, float[5] zero>"
        f"{{ c = Conv(x, w) {text} y = Conv(d, v) }}",
        17,
        one=1.0,
        zero=0.0,
    )
    samples = feeds(source)
    made = onnxq.quantize(source, samples, profile="onnxq", qdq=True, threads=1)
    lowered = onnxq.lower(made.model)
    assert onnxq.verify(made.model, lowered.model, samples, threads=1).ok
    assert [o.name for o in lowered.model.graph.output] == [o.name for o in source.graph.output]
    assert all(numpy_helper.to_array(t).size for t in lowered.model.graph.initializer)
