"""Models read and written: what onnx-graphsurgeon drops survives, and what cannot be carried is refused in one line."""

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from onnxq.errors import ModelError
from onnxq.graph.model import load, to_proto
from onnxq.graph.protos import required_ir
from support.build import floating
from support.prove.files import NET, again, message, same_values
from support.runs import run


@pytest.mark.parametrize(
    "dtype", ["int4", "uint4", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "bool", "uint64"]
)
@pytest.mark.parametrize("read", [False, True])
def test_constants_of_every_type_round_trip(dtype, read):
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    values = np.arange(15).reshape(3, 5).astype(np.float32).astype(kind)
    built = floating.proto("g (float[3,5] x) => (float[3,5] y) { c = Cast<to = 1>(w) y = Add(x, c) }", opset=21, ir=10)
    built.graph.initializer.append(numpy_helper.from_array(values, "w"))
    source = load(built)
    if read:
        assert np.array_equal(source.graph.nodes[0].inputs[0].values, values)
    for _ in range(2):  # writing does not use the constants up
        (kept,) = [t for t in again(source).graph.initializer if t.name == "w"]
        assert kept.data_type == helper.np_dtype_to_tensor_dtype(kind)
        assert np.array_equal(numpy_helper.to_array(kept), values)


def test_int4_made_from_numpy():
    source = floating.model("g (float[1,3] x) => (float[1,5] y) <float[3,5] w> { y = MatMul(x, w) }", opset=21, ir=8)
    values = np.arange(-8, 7).reshape(3, 5).astype(ml_dtypes.int4)
    scale = gs.Constant("s", np.asarray(0.5, np.float32))
    dequantized = gs.Variable("d", np.float32, [3, 5])
    node = source.graph.nodes[0]
    made = gs.Node("DequantizeLinear", "dq", {}, [gs.Constant("q", values), scale], [dequantized])
    source.graph.nodes.insert(0, made)
    node.inputs[1] = dequantized
    written = again(source)
    assert written.ir_version == 10
    (kept,) = [t for t in written.graph.initializer if t.name == "q"]
    assert len(kept.raw_data) == 8  # two an element
    assert run(written, {"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[-4.5, -3.0, -1.5, 0.0, 1.5]]
    assert made.inputs[0].values.dtype == ml_dtypes.int4


def test_metadata_doc_strings_and_versions():
    built = floating.proto(NET)
    built.model_version, built.domain, built.doc_string = 7, "org.example", "model doc"
    built.producer_name, built.producer_version = "maker", "1.2"
    built.metadata_props.add(key="author", value="me")
    built.graph.doc_string = "graph doc"
    built.graph.metadata_props.add(key="g", value="1")
    built.graph.input[0].doc_string = "input doc"
    built.graph.input[0].type.denotation = "IMAGE"
    built.graph.node[0].doc_string = "node doc"
    built.graph.node[0].metadata_props.add(key="n", value="2")
    written = again(load(built))
    for field in ("model_version", "domain", "doc_string", "producer_name", "producer_version", "metadata_props"):
        assert getattr(written, field) == getattr(built, field), field
    assert written.graph.doc_string == "graph doc"
    assert written.graph.metadata_props == built.graph.metadata_props
    assert written.graph.input == built.graph.input
    assert written.graph.node[0].doc_string == "node doc"
    assert written.graph.node[0].metadata_props == built.graph.node[0].metadata_props


def test_set_metadata():
    source = load(floating.proto(NET))
    source.set_metadata("a", "1")
    source.set_metadata("b", "2")
    source.set_metadata("a", "3")
    source.set_metadata("missing", None)
    assert source.metadata == {"a": "3", "b": "2"}
    source.set_metadata("b", None)
    assert load(again(source)).metadata == {"a": "3"}


def test_loading_leaves_the_proto_as_it_is():
    built = floating.proto(
        """g (float[2] x, float[2] w) => (float[2] y) {
            c = Constant<value = float[2] {1, 2}>()
            h = Add(x, w)
            y = Add(h, c)
        }"""
    )
    built.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    before = built.SerializeToString(deterministic=True)
    load(built)
    assert built.SerializeToString(deterministic=True) == before


def test_every_source_gives_the_same_model(tmp_path):
    built = floating.proto(NET)
    onnx.save(built, tmp_path / "m.onnx")
    raw = (tmp_path / "m.onnx").read_bytes()
    models = [load(built), load(raw), load(tmp_path / "m.onnx"), load(str(tmp_path / "m.onnx"))]
    assert len({to_proto(m).SerializeToString(deterministic=True) for m in models}) == 1
    assert len({m.sha256 for m in models[1:]}) == 1
    assert load(models[0]) is models[0]
    assert models[2].name == "m.onnx"


def test_dynamic_dimensions_keep_their_names():
    written = again(load(floating.proto("g (float[batch,3,h,w] x) => (float[batch,3,h,w] y) { y = Relu(x) }")))
    dims = [d.dim_param or d.dim_value for d in written.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "h", "w"]


def test_inputs_with_a_default_become_constants_and_are_named():
    built = floating.proto("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    built.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    source = load(built)
    assert source.notes == ["1 input(s) with a default value are fixed to it: w"]
    assert [t.name for t in source.graph.inputs] == ["x"]
    written = again(source)
    assert [v.name for v in written.graph.input] == ["x"]
    assert run(written, {"x": np.zeros(2, np.float32)})["y"].tolist() == [1, 1]


def test_ir_3_where_every_initializer_is_an_input():
    built = floating.proto(
        "g (float[2,3] x, float[3,4] w) => (float[2,4] y) { h = MatMul(x, w) y = Relu(h) }", opset=9, ir=3
    )
    built.graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "w"))
    source = load(built)
    assert source.notes == []  # the rule of that version, no choice of the model's
    assert source.graph.nodes[0].outputs[0].shape == [2, 4]
    written = again(source)
    assert written.ir_version == 4
    assert [v.name for v in written.graph.input] == ["x"]


def test_constant_nodes_become_constants():
    source = floating.model(
        """g (float[2] x) => (float[2] y, float[2] z) {
            a = Constant<value = float[2] {1, 2}>()
            b = Constant<value_float = 3.0>()
            c = Constant<value_floats = [1.0, 2.0]>()
            d = Constant<value_int = 0>()
            e = Constant<value_ints = [2]>()
            z = Constant<value = float[2] {5, 6}>()
            f = Add(x, a)
            h = Mul(f, b)
            i = Add(h, c)
            j = Gather(i, d)
            y = Expand(j, e)
        }"""
    )
    assert {n.op for n in source.graph.nodes} == {"Constant", "Add", "Mul", "Gather", "Expand"}
    assert [n.outputs[0].name for n in source.graph.nodes if n.op == "Constant"] == ["z"]
    out = run(again(source), {"x": np.ones(2, np.float32)})
    assert out["z"].tolist() == [5, 6]
    assert out["y"].tolist() == [7, 7]


def test_functions_are_inlined_and_our_own_are_kept():
    text = """<ir_version: 10, opset_import: ["": 21, "local": 1, "com.onnxq": 1]>
    g (float[2] x) => (float[2] y) { a = local.Twice(x) y = com.onnxq.Thrice(a) }
    <opset_import: ["": 21], domain: "local"> Twice (v) => (w) { w = Add(v, v) }
    <opset_import: ["": 21], domain: "com.onnxq"> Thrice (v) => (w) { u = Add(v, v) w = Add(u, v) }"""
    source = load(onnx.parser.parse_model(text))
    assert source.notes == ["inlined 1 model-local function(s): Twice"]
    assert [(n.domain, n.op) for n in source.graph.nodes] == [("", "Add"), ("com.onnxq", "Thrice")]
    written = again(source)
    assert [(f.domain, f.name) for f in written.functions] == [("com.onnxq", "Thrice")]
    assert {o.domain for o in written.opset_import} == {"", "com.onnxq"}
    assert run(written, {"x": np.ones(2, np.float32)})["y"].tolist() == [6, 6]


def test_nodes_get_unique_names():
    built = floating.proto(
        "g (float[2] x) => (float[2] y) { [same] a = Neg(x) [same] b = Neg(a) c = Neg(b) y = Neg(c) }"
    )
    assert [n.name for n in load(built).graph.nodes] == ["same", "same_1", "c", "y"]


def test_empty_lists_in_attributes():
    built = floating.proto("g (float[1,3,4] x) => (float[1,3,4] y) { y = Relu(x) }", opset=11)
    built.graph.node[0].op_type = "Squeeze"
    built.graph.node[0].attribute.append(helper.make_attribute("axes", [], attr_type=onnx.AttributeProto.INTS))
    source = load(built)
    written = to_proto(source)
    assert len(written.graph.node[0].attribute) == 0
    assert source.graph.nodes[0].attrs["axes"] == []


def test_empty_optional_inputs_and_outputs():
    built = floating.proto(
        'g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float[4] s = {1, 1, 2, 2}> { y = Resize(x, "", s) }'
    )
    written = again(load(built))
    assert list(written.graph.node[0].input) == ["x", "", "s"]
    same_values(built, written)


def test_unused_domains_are_dropped_and_ai_onnx_is_the_standard_one():
    built = floating.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    built.opset_import.add(domain="ai.onnx", version=17)
    assert [(o.domain, o.version) for o in to_proto(load(built)).opset_import] == [("", 17)]


@pytest.mark.parametrize(("ir", "opset", "expected"), [(3, 9, 4), (8, 17, 8), (8, 21, 10), (13, 21, 13), (14, 21, 13)])
def test_ir_versions(ir, opset, expected):
    built = floating.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=opset)
    assert required_ir(built, ir) == expected


def test_optional_values_are_refused():
    built = floating.proto("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    kind = built.graph.input[0].type
    inner = onnx.TypeProto.FromString(kind.SerializeToString())
    kind.optional_type.elem_type.CopyFrom(inner)
    assert message(built) == "model: input or output x is of type optional, which onnxq does not support"


def test_a_model_of_other_domains_alone_gets_an_opset():
    built = floating.proto("g (float[2] x) => (float[2] y) { y = custom.Thing(x) }")
    del built.opset_import[0]
    source = load(built)
    assert source.opset == 17
    assert {(o.domain, o.version) for o in to_proto(source).opset_import} == {("", 17), ("custom", 1)}


def test_functions_that_cannot_be_inlined():
    text = """<ir_version: 10, opset_import: ["": 21, "local": 1]>
    g (float[2] x) => (float[2] y) { y = local.Odd(x) }
    <opset_import: ["": 21, "local": 1], domain: "local"> Odd (v) => (w) { w = local.Odd(v) }"""
    source = onnx.parser.parse_model(text)
    try:
        load(source)
    except ModelError as err:
        assert "\n" not in str(err)
