"""fold-constants: what is known is computed, what must not be is left, and why."""

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import ExternalValues, load
from onnxq.passes.fold_constants import FoldConstants
from support.build import floating
from support.prove.passes import prove
from support.prove.values import constant

FOLD = FoldConstants()


def test_a_chain_of_known_nodes_becomes_one_constant():
    proof = prove(
        """g (float[2,3] x) => (float[2,3] y) <float[3,2] w, float[1] two = {2}> {
            t = Transpose<perm=[1,0]>(w)
            u = Mul(t, two)
            v = Neg(u)
            y = Add(x, v)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1}
    assert proof.changed == 3
    assert constant(proof.node("y").inputs[1]).shape == (2, 3)


def test_a_known_node_read_by_known_and_unknown_nodes():
    proof = prove(
        """g (float[3] x) => (float[3] y, float[3] z) <float[3] w> {
            a = Neg(w)
            b = Exp(a)
            y = Add(x, a)
            z = Add(x, b)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 2}
    assert proof.changed == 2


def test_nothing_known_nothing_changed():
    proof = prove("g (float[3] x) => (float[3] y) <float[3] w> { y = Mul(x, w) }", FOLD)
    assert (proof.changed, proof.ops, proof.reasons) == (0, {"Mul": 1}, {})


def test_inputs_are_not_constants():
    proof = prove("g (float[3] x, float[3] w) => (float[3] y) { n = Neg(w) y = Mul(x, n) }", FOLD)
    assert proof.changed == 0


def test_a_known_output_becomes_a_constant_node():
    proof = prove(
        """g (float[3] x) => (float[3] y, float[3] c) <float[3] w> {
            c = Neg(w)
            y = Add(x, c)
        }""",
        FOLD,
    )
    assert proof.ops == {"Constant": 1, "Add": 1}
    assert [t.name for t in proof.graph.outputs] == ["y", "c"]
    assert constant(proof.node("y").inputs[1]).shape == (3,)


def test_several_outputs_of_one_node():
    proof = prove(
        """g (float[2] x) => (float[2] y) <float[4] w, int64[2] s = {2, 2}> {
            a, b = Split<axis=0>(w, s)
            c = Add(x, a)
            y = Mul(c, b)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1, "Mul": 1}


def test_an_unused_second_output():
    proof = prove(
        """g (float[2] x) => (float[2] y) <float[4] w, int64[1] k = {2}> {
            a, i = TopK(w, k)
            y = Add(x, a)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1}


@pytest.mark.parametrize("op", ["Shape", "Size"])
def test_shape_of_a_tensor_whose_shape_is_known(op):
    proof = prove(
        f"g (float[2,3] x) => (float[2,3] y) {{ s = {op}(x) f = Cast<to=1>(s) m = ReduceMax(f) y = Add(x, m) }}", FOLD
    )
    assert proof.ops == {"Add": 1}


def test_shape_with_start_and_end():
    proof = prove(
        """g (float[N,3,4] x) => (float[N,3,4] y) {
            s = Shape<start=1>(x)
            f = Cast<to=1>(s)
            m = ReduceMax(f)
            y = Add(x, m)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1}


def test_known_dimensions_are_picked_from_a_partly_known_shape():
    proof = prove(
        """g (float[N,6,4] x) => (float[N,24] y)
            <int64 one = {1}, int64 zero = {0}, int64[1] z = {0}, int64[1] b = {1}, int64[1] e = {3}> {
            s = Shape(x)
            known = Gather(s, one)
            free = Gather(s, zero)
            tail = Slice(s, b, e)
            p = ReduceProd(tail)
            f = Unsqueeze(free, z)
            target = Concat<axis=0>(f, p)
            y = Reshape(x, target)
        }""",
        FOLD,
    )
    assert proof.ops == {"Shape": 1, "Gather": 1, "Unsqueeze": 1, "Concat": 1, "Reshape": 1}
    assert constant(proof.node("target").inputs[1]).tolist() == [24]


def test_a_negative_index_into_a_shape():
    proof = prove(
        """g (float[N,6] x) => (float[N,6] y) <int64 last = {-1}> {
            s = Shape(x)
            d = Gather(s, last)
            f = Cast<to=1>(d)
            y = Add(x, f)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1}


def test_a_slice_from_the_end_of_a_shape_backwards():
    proof = prove(
        """g (float[N,6,7] x) => (float[2] y)
            <int64[1] b = {-1}, int64[1] e = {0}, int64[1] a = {0}, int64[1] s = {-1}> {
            d = Shape(x)
            p = Slice(d, b, e, a, s)
            f = Cast<to=1>(p)
            m = ReduceSum<keepdims=0>(x)
            y = Add(f, m)
        }""",
        FOLD,
    )
    assert proof.ops == {"ReduceSum": 1, "Add": 1}
    assert constant(proof.node("y").inputs[0]).tolist() == [7, 6]


def test_shapes_that_become_known_are_used_in_the_next_sweep():
    # The Reshape's result has a known shape only once its target is folded.
    proof = prove(
        """g (float[2,6] x) => (float[3] y) <int64[1] a = {2}, int64[2] b = {2, 3}> {
            target = Concat<axis=0>(a, b)
            r = Reshape(x, target)
            s = Shape(r)
            f = Cast<to=1>(s)
            m = ReduceMax<keepdims=0>(x)
            y = Add(f, m)
        }""",
        FOLD,
    )
    assert "Shape" not in proof.ops
    assert constant(proof.node("y").inputs[0]).tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    "maker",
    [
        "r = RandomNormal<shape=[3], seed=1.0>()",
        "r = RandomUniformLike<seed=1.0>(w)",
        "r = Bernoulli<seed=1.0>(p)",
    ],
)
def test_random_numbers_are_never_folded(maker):
    source = floating.model(
        f"g (float[3] x) => (float[3] y) <float[3] w, float[3] p = {{0.5, 0.5, 0.5}}> {{ {maker} y = Add(x, r) }}"
    )
    assert pipeline.run(source, [FOLD], PassContext(source))[0].changed == 0


def test_dropout_in_training_is_random_and_in_inference_is_not():
    text = """g (float[3] x) => (float[3] y) <float[3] w, float r = {0.5}, bool t = {%s}> {
        d = Dropout(w, r, t)
        y = Add(x, d)
    }"""
    training = floating.model(text % 1)
    assert pipeline.run(training, [FOLD], PassContext(training))[0].changed == 0
    assert prove(text % 0, FOLD).ops == {"Add": 1}


def test_quantization_survives():
    proof = prove(
        """g (float[1,3] x) => (float[1,2] y)
            <float[3,2] w, int8[3,2] q, float s = {0.1}, int8 z = {0}, float b = {1}> {
            wq = QuantizeLinear(w, s, z)
            wd = DequantizeLinear(wq, s, z)
            h = MatMul(x, wd)
            qd = DequantizeLinear(q, s, z)
            n = MatMul(x, qd)
            y = Add(h, n)
        }""",
        FOLD,
        q=1,
    )
    assert proof.changed == 0
    assert proof.ops == {"QuantizeLinear": 1, "DequantizeLinear": 2, "MatMul": 2, "Add": 1}


def test_control_flow_is_not_folded_but_its_branches_are():
    proof = prove(
        """g (float[3] x, bool c) => (float[3] y) <float[3] w> {
            outer = Neg(w)
            y = If (c) <
                then_branch = t () => (float[3] a) { k = Exp(outer) a = Add(x, k) },
                else_branch = e () => (float[3] b) <float[3] v = {1, 2, 3}> { m = Neg(v) b = Add(x, m) }
            >
        }""",
        FOLD,
    )
    assert proof.ops == {"If": 1, "Add": 2}
    known = prove(
        """g (float[3] x) => (float[3] y) <bool c = {1}> {
            y = If (c) <
                then_branch = t () => (float[3] a) { a = Neg(x) },
                else_branch = e () => (float[3] b) { b = Exp(x) }
            >
        }""",
        FOLD,
    )
    assert known.changed == 0


def test_results_that_blow_up_stay_with_the_reason():
    text = """g (float[1] x) => (float[1000,1000] y) <int64[2] s = {1000, 1000}> {
        [big] c = ConstantOfShape<value = float[1] {0.5}>(s)
        [scale] d = Neg(c)
        y = Add(x, d)
    }"""
    assert prove(text, FOLD).ops == {"Add": 1}
    proof = prove(text, FoldConstants(max_bytes=1 << 20))
    assert proof.changed == 0
    assert proof.reasons == {"big": "its result takes 3.8 MiB, more than max_bytes=1048576"}


def test_a_result_as_large_as_what_it_replaces_is_folded():
    proof = prove(
        "g (float[1,300] x) => (float[1,200] y) <float[200,300] w> { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }",
        FoldConstants(max_bytes=1000),
    )
    assert proof.ops == {"MatMul": 1}


def test_a_growing_result_of_a_computed_size_is_seen_before_it_is_made():
    # 4e12 elements: made by accident it would not fit in memory.
    proof_text = """g (float[1] x) => (float[M,N] y) <int64[1] a = {2000000}> {
        s = Concat<axis=0>(a, a)
        t = Identity(s)
        [big] c = ConstantOfShape<value = float[1] {0.5}>(t)
        y = Add(x, c)
    }"""
    source = floating.model(proof_text)
    report = pipeline.run(source, [FOLD], PassContext(source))[0]
    assert [failure.node for failure in report.skipped] == ["big"]
    assert "MiB" in report.skipped[0].reason


def test_failures_have_a_reason_and_do_not_stop_the_others():
    source = floating.model(
        """g (float[3] x) => (float[N] y, float[3] z) <float[3] w, int64[1] bad = {7}, int64 zero = {0}> {
            [wrong] a = Gather(w, bad)
            [right] b = Neg(w)
            y = Add(x, a)
            z = Add(x, b)
        }"""
    )
    report = pipeline.run(source, [FOLD], PassContext(source))[0]
    assert report.changed == 1
    assert [f.node for f in report.skipped] == ["wrong"]
    assert report.skipped[0].reason.startswith("cannot be computed beforehand: ")


def test_types_that_onnxruntime_lacks_are_computed_by_the_reference():
    bf16 = np.asarray([1.5, -2.5], ml_dtypes.bfloat16)
    source = floating.proto("g (float[2] x) => (float[2] y) { n = Neg(w) f = Cast<to=1>(n) y = Add(x, f) }")
    source.graph.initializer.append(numpy_helper.from_array(bf16, "w"))
    loaded = load(source)
    report = pipeline.run(loaded, [FOLD], PassContext(loaded))[0]
    assert {n.op for n in loaded.graph.nodes} == {"Add"}
    assert constant(loaded.graph.nodes[0].inputs[1]).tolist() == [-1.5, 2.5]
    assert any("Neg" in note and "reference" in note for note in report.notes)


def test_a_sequence_of_constants_is_not_one_tensor():
    source = floating.model(
        """g (float[2] x) => (float[2] y) <float[2] w, int64 k = {0}> {
            [seq] s = SequenceConstruct(w, w)
            t = SequenceInsert(s, x)
            a = SequenceAt(t, k)
            y = Add(a, x)
        }"""
    )
    report = pipeline.run(source, [FOLD], PassContext(source))[0]
    assert [str(f) for f in report.skipped] == ["seq: its result is not a numeric tensor"]
    assert "SequenceConstruct" in {n.op for n in source.graph.nodes}


def test_a_tensor_taken_from_a_known_sequence_is_folded():
    proof = prove(
        """g (float[4] x) => (float[4] y) <float[2] w> {
            s = SequenceConstruct(w, w)
            c = ConcatFromSequence<axis=0>(s)
            y = Add(c, x)
        }""",
        FOLD,
    )
    assert proof.ops == {"Add": 1}


def test_two_known_outputs_of_one_node():
    proof = prove(
        "g (float[2] x) => (float[2] y, float[2] a, float[2] b) <float[4] w> { a, b = Split<axis=0>(w) y = Neg(x) }",
        FOLD,
    )
    assert proof.ops == {"Constant": 2, "Neg": 1}


def test_custom_operators_stay():
    source = load(floating.proto("g (float[2] x) => (float[2] y) <float[2] w> { c = custom.Thing(w) y = Add(x, c) }"))
    assert pipeline.run(source, [FOLD], PassContext(source))[0].changed == 0


def test_constant_nodes_that_no_longer_make_an_output_are_folded():
    source = floating.model("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    tensor = gs.Variable("c", np.float32, [2])
    attribute = gs.Constant("v", np.ones(2, np.float32))
    source.graph.nodes.append(gs.Node("Constant", "k", {"value": attribute}, [], [tensor]))
    source.graph.nodes.append(
        gs.Node("Add", "a", {}, [source.graph.outputs[0], tensor], [gs.Variable("z", np.float32, [2])])
    )
    source.graph.outputs = [source.graph.nodes[-1].outputs[0]]
    assert prove(source, FOLD).ops == {"Neg": 1, "Add": 1}


def test_weights_in_external_files_are_not_read_beyond_the_bound(tmp_path):
    w = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    built = floating.proto(
        "g (float[1,64] x) => (float[1,64] y) { [turn] t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    )
    built.graph.initializer.append(w)
    onnx.save(built, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    source = load(tmp_path / "m.onnx")
    weight = next(t for t in source.graph.nodes[0].inputs)
    stub = TensorProto.FromString(
        onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer[0].SerializeToString()
    )
    weight._values = ExternalValues(stub, tmp_path)
    report = pipeline.run(source, [FoldConstants(max_bytes=1000)], PassContext(source))[0]
    assert [str(f) for f in report.skipped] == ["turn: its input w (0.0 MiB) stays in the external file"]
    assert isinstance(weight._values, ExternalValues)
    assert pipeline.run(source, [FOLD], PassContext(source))[0].changed == 1
