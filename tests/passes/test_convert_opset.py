"""convert-opset: the same values at every newer opset, by the ONNX converter or by our bridges."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import PassError, PreconditionError
from onnxq.graph.model import ExternalValues, load, to_proto
from onnxq.passes.convert_opset import ConvertOpset
from support.build import floating
from support.prove.passes import prove
from support.prove.values import assert_close, constant
from support.runs import run

TARGETS = (13, 17, 21, 26)

# opset, body, constants (every body reads x, float[2,4,6,6], and makes y)
OLD = [
    (7, "y = Softmax<axis = 1>(x)", ""),
    (7, "y = LogSoftmax<axis = 3>(x)", ""),
    (11, "y = Softmax<axis = -1>(x)", ""),
    (11, "y = Hardmax<axis = 3>(x)", ""),
    (7, "s = ReduceSum<axes = [1, 2]>(x) y = Softmax<axis = 1>(s)", ""),
    (11, "s = ReduceSum<axes = [1, 2]>(x) y = Hardmax<axis = 1>(s)", ""),
    (7, "p = GlobalAveragePool(x) y = Softmax(p)", ""),
    (7, "y = BatchNormalization<epsilon = 0.01>(x, c4, c4, c4, c4)", "float[4] c4 = {0.5, 1, 2, 3}"),
    (7, "y, m = Dropout<ratio = 0.3>(x)", ""),
    (10, "y = Dropout<ratio = 0.3>(x)", ""),
    (7, "y = Clip<min = -0.5, max = 0.5>(x)", ""),
    (7, "y = Clip<min = -0.5>(x)", ""),
    (7, "y = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1]>(x)", ""),
    (7, 'y = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], mode = "edge">(x)', ""),
    (7, "y = Slice<starts = [1, 0], ends = [3, 2], axes = [1, 2]>(x)", ""),
    (7, "y, i = TopK<k = 2, axis = 1>(x)", ""),
    (7, "s = Slice<starts = [0], ends = [1]>(x) y = Squeeze<axes = [0]>(s)", ""),
    (7, "y = Unsqueeze<axes = [0, 2]>(x)", ""),
    (7, "y = ReduceSum<axes = [1], keepdims = 0>(x)", ""),
    (7, "y = ReduceMean<axes = [2, 3]>(x)", ""),
    (13, "y = ReduceMax<axes = [-1]>(x)", ""),
    (7, "y, z = Split<axis = 1, split = [1, 3]>(x)", ""),
    (7, "y, z = Split<axis = 1>(x)", ""),
    (7, "y = Upsample<scales = [1.0, 1.0, 2.0, 2.0]>(x)", ""),
    (7, 'y = Upsample<scales = [1.0, 1.0, 2.0, 2.0], mode = "linear">(x)', ""),
    (9, "y = Upsample(x, s)", "float[4] s = {1, 1, 1.5, 1.5}"),
    (9, 'y = Upsample<mode = "linear">(x, s)', "float[4] s = {1, 1, 1.5, 1.5}"),
    (10, "y = Resize(x, s)", "float[4] s = {1, 1, 2, 3}"),
    (10, "y = Resize(x, s)", "float[4] s = {1, 1, 0.7, 0.7}"),
    (10, 'y = Resize<mode = "linear">(x, s)', "float[4] s = {1, 1, 0.5, 0.7}"),
    (11, 'y = Resize<mode = "nearest">(x, e, s)', "float[0] e = {}, float[4] s = {1, 1, 1.5, 1.5}"),
    (7, "f = Flatten(x) y = Gemm<alpha = 0.5>(f, w, b)", "float[144,3] w, float[3] b"),
    (7, "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(x)", ""),
    (10, "y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)", ""),
    (7, 'y = MaxPool<kernel_shape = [3, 3], auto_pad = "SAME_UPPER", strides = [2, 2]>(x)', ""),
    (7, "y = LRN<size = 3, alpha = 0.1, beta = 0.7, bias = 2.0>(x)", ""),
    (7, "y = Sum(x, x)", ""),
    (7, "y = Conv<pads = [1, 1, 1, 1]>(x, w)", "float[5,4,3,3] w"),
    (7, "a = Cast<to = 6>(x) y = Cast<to = 1>(a)", ""),
    (7, "b = Greater(x, c) y = Cast<to = 1>(b)", "float c = {0.1}"),
    (9, "t = Squeeze(k) o = Scatter<axis = 0>(c4, k, v) y = Add(o, v)", "int64[1] k = {2}, float[1] v, float[4] c4"),
    (16, 'y = GridSample<mode = "bilinear">(x, g)', "float[2,3,3,2] g"),
    (10, "y = Resize(x, s)", "float[4] s = {1, 1, 2, 0.5}"),
    (10, "y = Resize(x, s)", "float[4] s = {1, 2, 0.7, 1.5}"),
    (10, 'y = Resize<mode = "linear">(x, s)', "float[4] s = {1, 1, 2, 0.5}"),
    (10, "k = Abs(s) y = Resize(x, k)", "float[4] s = {1, 1, -1.5, 0.4}"),
    (10, 'k = Abs(s) y = Resize<mode = "linear">(x, k)', "float[4] s = {1, 1, -1.5, 0.4}"),
    (11, "y = Hardmax<axis = 1>(x)", ""),
    (11, "y = Hardmax<axis = -2>(x)", ""),
    (11, "y = Hardmax<axis = 0>(x)", ""),
    (7, "y = Hardmax(x)", ""),
    (18, "y = GroupNormalization<num_groups = 2>(x, a, a)", "float[2] a = {0.5, 2}"),
    (18, "b = Abs(a) y = GroupNormalization<num_groups = 2, epsilon = 0.1>(x, a, b)", "float[2] a = {0.5, -2}"),
    (20, "y = GroupNormalization<num_groups = 4>(x, c4, c4)", "float[4] c4 = {0.5, 1, 2, 3}"),
    (10, "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", "float s = {0.1}, int8 z = {3}"),
]


def old(opset: int, body: str, constants: str) -> onnx.ModelProto:
    built = floating.proto(f"g (float[2,4,6,6] x) => (float y) <{constants}> {{ {body} }}", opset=opset)
    built.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(built)
    result = inferred.graph.output[0].type.tensor_type
    if not result.HasField("shape"):  # inference does not know GroupNormalization
        result.shape.CopyFrom(inferred.graph.input[0].type.tensor_type.shape)
    return inferred


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("opset", "body", "constants"), OLD)
def test_values_are_kept(opset, body, constants, target):
    if target <= opset:
        pytest.skip("nothing to raise")
    proof = prove(old(opset, body, constants), ConvertOpset(version=target), tolerance=1e-6)
    assert proof.model.opset == target
    assert proof.changed >= 1


def test_it_is_never_lowered():
    proof = prove("g (float[3] x) => (float[3] y) { y = Neg(x) }", ConvertOpset(version=13), opset=17)
    assert (proof.changed, proof.model.opset) == (0, 17)


@pytest.mark.parametrize("version", [6, 27])
def test_a_version_out_of_range_is_refused(version):
    source = floating.model("g (float[3] x) => (float[3] y) { y = Neg(x) }")
    with pytest.raises(PreconditionError, match=f"opset {version} is not between 7 and 26"):
        pipeline.run(source, [ConvertOpset(version=version)], PassContext(source))


def test_it_says_what_changed():
    proof = prove(old(9, "d = Dropout(x) c = Clip<min = 0.0>(d) y = Neg(c)", ""), ConvertOpset(version=13))
    assert proof.report.notes == ("opset 9 to 13; rewritten: Clip (1), Dropout (1)",)
    assert str(ConvertOpset(version=13)) == "convert-opset{version=13}"


def test_a_softmax_over_one_wide_dimension_stays_one_node():
    proof = prove(old(7, "p = GlobalAveragePool(x) y = Softmax(p)", ""), ConvertOpset(version=13))
    assert proof.ops == {"GlobalAveragePool": 1, "Softmax": 1}
    assert proof.node("y").attrs["axis"] == 1


@pytest.mark.parametrize("version", [13, 18, 20])
def test_what_its_own_opset_deprecates_is_rewritten(version):
    """GroupNormalization of opsets 18 to 20 runs in onnxruntime, but onnx calls the model invalid."""
    text = """g (float[N,4,H,W] x, bool c) => (float[N,4,H,W] y, float[N,4,H,W] z) <float[2] a, float[4] b> {
        y = GroupNormalization<num_groups = 2>(x, a, a)
        z = If(c) <then_branch = t () => (float[N,4,H,W] u) { u = GroupNormalization<num_groups = 4>(y, b, b) },
                   else_branch = e () => (float[N,4,H,W] v) { v = Relu(x) }> }"""
    proof = prove(floating.proto(text, opset=18), ConvertOpset(version=version), tolerance=1e-6)
    onnx.checker.check_model(to_proto(proof.model), full_check=True)
    assert (proof.changed, proof.model.opset) == ((2 if version <= 18 else proof.changed), max(18, version))
    assert proof.ops["InstanceNormalization"] == 2 and "GroupNormalization" not in proof.ops


def test_a_hardmax_of_unknown_rank_is_flattened():
    text = "g (float[N,3,4] x, int64[k] s) => (float y) { r = Reshape(x, s) y = Hardmax<axis = -2>(r) }"
    source = floating.proto(text, opset=11)
    converted = load(source)
    pipeline.run(converted, [ConvertOpset(version=13)], PassContext(converted))
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32), "s": np.array([2, 2, 6])}
    assert np.array_equal(run(source, feed)["y"], run(converted, feed)["y"])


def test_the_batched_scan_of_opset_8_is_refused():
    text = """g (float[1,3,2] x) => (float[1,3,2] y) <float[1,2] s> {
        [scan] e, y = Scan <num_scan_inputs = 1, body = b (float[2] a, float[2] v) => (float[2] c, float[2] w) {
            c = Add(a, v)
            w = Identity(c)
        }> ("", s, x)
    }"""
    source = load(floating.proto(text, opset=8))
    with pytest.raises(PreconditionError, match=r"node scan .Scan. has a batch dimension"):
        pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))


def test_a_node_that_the_converter_cannot_take_is_named():
    source = load(old(7, "[mvn] y = MeanVarianceNormalization(x)", ""))
    with pytest.raises(PassError, match=r"node mvn \(MeanVarianceNormalization\) cannot be raised from opset 7 to 13"):
        pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))


def test_names_doc_strings_and_metadata_survive():
    built = old(9, "[first] d = Dropout(x) [second] y = Clip(d)", "")
    built.graph.node[1].doc_string = "keeps it small"
    built.graph.node[1].metadata_props.add(key="origin", value="layer 3")
    built.metadata_props.add(key="author", value="me")
    built.graph.doc_string, built.doc_string = "a graph", "a model"
    source = load(built)
    pipeline.run(source, [ConvertOpset(version=17)], PassContext(source))
    written = to_proto(source)
    assert [n.name for n in written.graph.node] == ["first", "second"]
    assert written.graph.node[1].doc_string == "keeps it small"
    assert [(p.key, p.value) for p in written.graph.node[1].metadata_props] == [("origin", "layer 3")]
    assert [(p.key, p.value) for p in written.metadata_props] == [("author", "me")]
    assert (written.graph.doc_string, written.doc_string) == ("a graph", "a model")
    assert [(v.name, v.type.tensor_type.elem_type) for v in written.graph.input] == [("x", 1)]


def test_dynamic_dimensions_keep_their_names():
    built = floating.proto("g (float[batch,4,h,w] x) => (float[batch,4,h,w] y) { y = Clip<min = 0.0>(x) }", opset=9)
    source = load(built)
    pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))
    dims = to_proto(source).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 4, "h", "w"]


def test_weights_are_the_same_objects_after_conversion():
    # 40,000 values: large enough to stand aside.
    text = "g (float[1,200] x) => (float[1,200] y) <float[200,200] w> { d = Dropout(x) y = MatMul(d, w) }"
    source = load(floating.proto(text, opset=9))
    weight = source.graph.nodes[1].inputs[1]._values
    pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))
    assert source.graph.nodes[-1].inputs[1]._values is weight
    assert source.graph.nodes[-1].inputs[1].name == "w"


def test_external_weights_are_not_read(tmp_path):
    text = "g (float[1,200] x) => (float[1,200] y) <float[200,200] w> { d = Dropout(x) y = MatMul(d, w) }"
    onnx.save(floating.proto(text, opset=9), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin")
    source = load(tmp_path / "m.onnx")
    weight = source.graph.nodes[1].inputs[1]
    stub = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer[0]
    weight._values = ExternalValues(stub, tmp_path)
    pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))
    assert isinstance(source.graph.nodes[-1].inputs[1]._values, ExternalValues)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "bfloat16", "float8_e4m3fn"])
def test_constants_of_types_that_numpy_lacks(dtype):
    held = np.asarray([[1, 2], [3, 1]], getattr(ml_dtypes, dtype))
    built = floating.proto("g (float[2,2] x) => (float[2,2] y) { c = Cast<to = 1>(w) y = Add(x, c) }", opset=21, ir=10)
    built.graph.initializer.append(numpy_helper.from_array(held, "w"))
    source = load(built)
    pipeline.run(source, [ConvertOpset(version=23)], PassContext(source))
    values = constant(source.graph.nodes[0].inputs[0])
    assert values.dtype == held.dtype
    assert np.array_equal(values, held)


def test_subgraphs_are_converted_too_and_capture_large_weights():
    text = """g (float[1,200] x, bool c) => (float[1,200] y) <float[200,200] w> {
        h = MatMul(x, w)
        y = If (c) <
            then_branch = t () => (float[1,200] a) { d = Dropout(h) a = MatMul(d, w) },
            else_branch = e () => (float[1,200] b) { u = Unsqueeze<axes = [0]>(h) b = Squeeze<axes = [0]>(u) }
        >
    }"""
    proof = prove(text, ConvertOpset(version=13), opset=9)
    assert proof.ops == {"MatMul": 2, "If": 1, "Dropout": 1, "Unsqueeze": 1, "Squeeze": 1}
    written = to_proto(proof.model)
    assert sum(t.name == "w" for t in written.graph.initializer) == 1
    branches = [a.g for n in written.graph.node for a in n.attribute if a.HasField("g")]
    assert not [t for g in branches for t in g.initializer if t.name == "w"]


def test_constants_of_models_older_than_ir_4():
    proof = prove(
        "g (bool[2] x) => (bool[2] y) <bool[2] w = {1, 0}> { y = And(x, w) }", ConvertOpset(version=13), opset=7, ir=3
    )
    assert proof.model.opset == 13


def test_custom_operators_are_left_alone():
    source = load(floating.proto("g (float[3] x) => (float[3] y) { h = custom.Thing<k = 3>(x) y = Clip(h) }", opset=9))
    pipeline.run(source, [ConvertOpset(version=13)], PassContext(source))
    written = to_proto(source)
    assert [(n.domain, n.op_type) for n in written.graph.node] == [("custom", "Thing"), ("", "Clip")]
    assert {(o.domain, o.version) for o in written.opset_import} == {("", 13), ("custom", 1)}


def test_squeezenet_at_opset_7(shared):
    source = load(shared / "models" / "squeezenet_imagenet.onnx")
    inputs = floating.feeds(source, 1)
    before = [run(source, feed) for feed in inputs]
    report = pipeline.run(source, [ConvertOpset(version=21)], PassContext(source))[0]
    assert report.notes == ("opset 7 to 21; rewritten: Dropout (1), Softmax (1)",)
    for feed, expected in zip(inputs, before, strict=True):
        after = run(source, feed)
        for name, value in expected.items():
            assert_close(value, after[name], 1e-5)
