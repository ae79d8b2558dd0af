"""Models in and out: what onnx-graphsurgeon drops survives, and what cannot be read is refused in one line."""

import os
import stat
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import ModelError, OutputError
from onnxq.execution import save
from onnxq.graph.model import ExternalValues, Model, load, to_proto
from onnxq.graph.protos import required_ir
from onnxq.graph.walk import all_graphs
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.fold_constants import FoldConstants
from support.build import floating
from support.prove.values import assert_close
from support.runs import run

NET = "g (float[N,64] x) => (float[N,64] y) <float[64,64] w, float[64] b> { h = MatMul(x, w) y = Add(h, b) }"

LARGE = NET.replace("64", "200")  # the weight takes 160 kB


def again(source: Model) -> onnx.ModelProto:
    """Written, serialized and parsed."""
    written = onnx.ModelProto.FromString(to_proto(source).SerializeToString())
    onnx.checker.check_model(written, full_check=True)
    return written


def same_values(a: onnx.ModelProto | Model, b: onnx.ModelProto | Model) -> None:
    for feed in floating.feeds(load(a), 1):
        old, new = run(a, feed), run(b, feed)
        for name, value in old.items():
            assert_close(value, new[name], 0)


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(p.name for p in folder.iterdir())


# --- what survives


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


def all_protos(graph):
    yield graph
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("g"):
                yield from all_protos(attr.g)


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


# --- external data


def external(folder, name="m.onnx", text=NET, data="m.bin"):
    onnx.save(floating.proto(text), folder / name, save_as_external_data=True, location=data, size_threshold=0)
    return folder / name


@pytest.mark.parametrize("read", [False, True])
def test_external_data_is_found_beside_the_model_and_saved_beside_the_copy(tmp_path, monkeypatch, read):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = external(tmp_path / "in")
    monkeypatch.chdir(tmp_path)  # neither folder
    source = load(path)
    assert source.external
    if read:
        assert source.graph.nodes[0].inputs[1].values.shape == (64, 64)
    save.save(source, tmp_path / "out" / "n.onnx")
    assert names(tmp_path / "out") == ["n.onnx", "n.onnx.data"]
    (tmp_path / "in" / "m.bin").unlink()
    same_values(floating.proto(NET), load(tmp_path / "out" / "n.onnx"))


def test_an_external_model_is_saved_over_itself(tmp_path):
    path = external(tmp_path)
    save.save(load(path), path)
    save.save(load(path), path)
    same_values(floating.proto(NET), load(path))
    assert names(tmp_path) == ["m.bin", "m.onnx", "m.onnx.data"]


def test_lazy_weights_are_streamed_and_never_replace_their_own_source(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxq.graph.model.INLINE_LIMIT", 1000)  # a model over 2 GB, in miniature
    monkeypatch.setattr("onnxq.execution.save.INLINE_LIMIT", 1000)
    path = external(tmp_path, text=LARGE)
    source = load(path)
    weight = source.graph.nodes[0].inputs[1]
    assert isinstance(weight._values, ExternalValues)
    assert isinstance(source.graph.nodes[1].inputs[1]._values, np.ndarray)  # small ones are read at once
    assert source.graph.nodes[0].outputs[0].shape == ["N", 200]  # inferred all the same
    save.save(source, tmp_path / "n.onnx")
    assert isinstance(weight._values, ExternalValues)
    same_values(floating.proto(LARGE), onnx.load(tmp_path / "n.onnx"))
    lazy = load(tmp_path / "n.onnx")
    with pytest.raises(OutputError, match=r"its weights would replace n.onnx.data, which they are read from"):
        save.save(lazy, tmp_path / "n.onnx")
    same_values(floating.proto(LARGE), onnx.load(tmp_path / "n.onnx"))


def test_large_weights_in_subgraphs_are_saved_externally(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxq.graph.model.INLINE_LIMIT", 1000)
    monkeypatch.setattr("onnxq.execution.save.INLINE_LIMIT", 1000)
    text = """g (float[1,64] x, bool c) => (float[1,64] y) {
        y = If (c) <
            then_branch = t () => (float[1,64] p) { p = MatMul(x, v) },
            else_branch = e () => (float[1,64] q) { q = Neg(x) }
        >
    }"""
    built = floating.proto(text)
    inner = built.graph.node[0].attribute[0].g
    inner.initializer.append(numpy_helper.from_array(np.eye(64, dtype=np.float32) * 2, "v"))
    save.save(load(built), tmp_path / "m.onnx")
    (stored,) = [
        t for g in all_protos(onnx.load(tmp_path / "m.onnx", load_external_data=False).graph) for t in g.initializer
    ]
    assert external_data_helper.uses_external_data(stored)
    lazy = load(tmp_path / "m.onnx")
    save.save(lazy, tmp_path / "n.onnx")
    (tmp_path / "m.onnx.data").unlink()
    same_values(built, onnx.load(tmp_path / "n.onnx"))


def test_a_small_external_model_leaves_no_empty_data_file(tmp_path):
    path = external(tmp_path, text="g (float[2] x) => (float[2] y) <float[2] w> { y = Add(x, w) }")
    save.save(load(path), tmp_path / "n.onnx")
    assert names(tmp_path) == ["m.bin", "m.onnx", "n.onnx"]


# --- what is refused


def message(source) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_files_that_are_no_models(tmp_path):
    assert message(tmp_path / "none.onnx").endswith("none.onnx: no such file")
    assert "cannot be read" in message(tmp_path)
    path = tmp_path / "bad.onnx"
    whole = floating.proto(NET).SerializeToString()
    for content in (b"", b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000), b"PK\x03\x04" + bytes(50)):
        path.write_bytes(content)
        assert message(path).startswith(f"{path}: not an ONNX model")
    for length in (1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert message(path).startswith(f"{path}: not an ONNX model")
    assert message(whole[: len(whole) // 2]).startswith("model bytes: not an ONNX model")
    assert message(onnx.TensorProto(name="t", dims=[1]).SerializeToString()).startswith(
        "model bytes: not an ONNX model"
    )


def test_external_data_that_is_missing_or_cut(tmp_path):
    path = external(tmp_path)
    data = tmp_path / "m.bin"
    with open(data, "r+b") as file:
        file.truncate(1000)
    text = message(path)
    assert "external data file m.bin is truncated: tensor w needs 16384 bytes, the file has 1000" in text
    data.unlink()
    assert "external data file m.bin is missing (tensor w)" in message(path)


def test_external_data_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    path = external(tmp_path / "in")
    os.replace(tmp_path / "in" / "m.bin", tmp_path / "m.bin")
    altered = onnx.load(path, load_external_data=False)
    for tensor in altered.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../m.bin"
    path.write_bytes(altered.SerializeToString())
    assert "external data cannot be read" in message(path)


def test_attributes_that_cannot_be_carried_are_refused():
    built = floating.proto("g (float[2] x) => (float[2] y) { [odd] y = custom.Thing(x) }")
    built.graph.node[0].attribute.append(helper.make_attribute("shape", helper.make_tensor_type_proto(1, [2])))
    assert message(built) == "model: node odd has attribute shape of type TYPE_PROTO, which onnxq cannot carry"
    inner = floating.proto(CONTROL)
    node = inner.graph.node[1].attribute[0].g.node[0]
    node.attribute.append(helper.make_attribute("many", [numpy_helper.from_array(np.ones(1))]))
    assert "attribute many of type TENSORS" in message(inner)


def test_optional_values_are_refused():
    built = floating.proto("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    kind = built.graph.input[0].type
    inner = onnx.TypeProto.FromString(kind.SerializeToString())
    kind.optional_type.elem_type.CopyFrom(inner)
    assert message(built) == "model: input or output x is of type optional, which onnxq cannot carry"


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


# --- writing


def test_a_model_is_saved_with_the_usual_permissions(tmp_path):
    save.save(floating.model(NET), tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "m.onnx").stat().st_mode) == 0o666 & ~mask


def test_an_invalid_model_leaves_the_old_file(tmp_path):
    target = tmp_path / "m.onnx"
    target.write_bytes(b"the old one")
    source = floating.model(NET)
    source.graph.nodes[0].op = "NoSuchOperator"
    with pytest.raises(ModelError, match="the model that was made is invalid"):
        save.save(source, target)
    assert target.read_bytes() == b"the old one"
    assert names(tmp_path) == ["m.onnx"]


def test_a_model_that_onnxruntime_refuses_leaves_the_old_file(tmp_path):
    target = tmp_path / "m.onnx"
    target.write_bytes(b"the old one")
    with pytest.raises(ModelError, match="onnxruntime"):
        save.save(floating.model("g (float[2] x) => (float[2] y) { y = custom.Thing(x) }"), target)
    assert target.read_bytes() == b"the old one"
    assert names(tmp_path) == ["m.onnx"]


def test_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user writes everywhere")
        with pytest.raises(OutputError, match="cannot be written"):
            save.save(floating.model(NET), folder / "m.onnx")
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to():
    with pytest.raises(OutputError, match=r"^/proc/self/m.onnx: cannot be written: "):
        save.save(floating.model(NET), "/proc/self/m.onnx")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "m.onnx"
    target.write_bytes(b"the old one")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save.save(floating.model(NET), target)
    monkeypatch.undo()
    assert target.read_bytes() == b"the old one"
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize(("name", "why"), [("missing/m.onnx", "does not exist"), ("", "is a folder")])
def test_targets_that_make_no_sense(tmp_path, name, why):
    with pytest.raises(OutputError, match=why):
        save.save(floating.model(NET), tmp_path / name)


def test_an_opset_newer_than_onnxruntime_reads(tmp_path):
    source = floating.model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    source.graph.opset = 27
    for entry in source.graph.import_domains:
        entry.version = 27
    with pytest.raises(ModelError, match=r"m\.onnx"):
        save.save(source, tmp_path / "m.onnx")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_model_over_2_gb(tmp_path):
    """Three weights of 1 GB in a sparse file: loaded by path, rewritten, saved, and run."""
    side = 16000
    text = """g (float[1,16000] x) => (float[1,16000] y) <float zero = {0}> {
        a = Gemm(x, w0)
        i = Identity(a)
        b = Gemm(i, w1)
        j = Add(b, zero)
        y = Gemm(j, w2)
    }"""
    built = floating.proto(text)
    size = side * side * 4
    with open(tmp_path / "m.bin", "wb") as data:
        data.truncate(3 * size)
        for i in range(3):  # a diagonal of 2 in each
            for k in range(0, side, 100):
                data.seek(i * size + (k * side + k) * 4)
                data.write(np.float32(2).tobytes())
    for i in range(3):
        tensor = built.graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "m.bin"), ("offset", str(i * size)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(built.SerializeToString())
    source = load(tmp_path / "m.onnx")
    reports = pipeline.run(source, [FoldConstants(), EliminateIdentity()], PassContext(source))
    assert [r.changed for r in reports] == [0, 2]
    weights = [t for g in all_graphs(source.graph) for t in g.tensors().values() if t.name.startswith("w")]
    assert all(isinstance(t._values, ExternalValues) for t in weights)
    save.save(source, tmp_path / "n.onnx")
    (tmp_path / "m.bin").unlink()
    assert (tmp_path / "n.onnx").stat().st_size < 10_000
    from onnxq.execution import runtime

    x = np.arange(side, dtype=np.float32).reshape(1, side)
    (y,) = runtime.session(tmp_path / "n.onnx", threads=2).run(None, {"x": x})
    expected = np.zeros_like(x)
    expected[0, ::100] = 8 * x[0, ::100]
    assert np.array_equal(y, expected)
