"""Models from files: external data, and files that are no models."""

import os

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, external_data_helper, numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import OutputError
from onnxq.execution import save
from onnxq.graph.model import ExternalValues, load
from onnxq.graph.walk import all_graphs
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.fold_constants import FoldConstants
from support.build import floating
from support.prove.files import NET, all_protos, external, message, names, same_values

LARGE = NET.replace("64", "200")  # the weight takes 160 kB


@pytest.mark.parametrize("read", [False, True])
def test_external_data_is_found_next_to_the_model_and_saved_next_to_the_copy(tmp_path, monkeypatch, read):
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


def test_older_weights_stay_until_the_model_is_replaced(tmp_path, monkeypatch):
    """Killed between the two files, whichever it is, a model has its own weights."""
    path, target = external(tmp_path), tmp_path / "n.onnx"
    save.save(load(path), target)
    first = {name: (tmp_path / name).read_bytes() for name in ("n.onnx", "n.onnx.data")}
    save.save(load(path), target)  # the same weights keep their name
    assert {name: (tmp_path / name).read_bytes() for name in first} == first

    other = load(path)
    weight = next(t for t in other.graph.tensors().values() if isinstance(t, gs.Constant))
    weight.values = weight.values + 1
    seen = []

    def replace(source, to, real=os.replace):
        real(source, to)
        seen.append(numpy_helper.to_array(onnx.load(target).graph.initializer[0]))  # it loads at every moment

    monkeypatch.setattr(os, "replace", replace)
    save.save(other, target)
    data = [name for name in names(tmp_path) if name.startswith("n.onnx.") and name.endswith(".data")]
    assert len(data) == 1 and data != ["n.onnx.data"]
    np.testing.assert_array_equal(seen[0] + 1, seen[-1])
    again = target.read_bytes()
    save.save(other, target)
    assert target.read_bytes() == again
    save.save(load(path), target)
    assert len([name for name in names(tmp_path) if name.startswith("n.onnx.")]) == 1
    same_values(floating.proto(NET), load(target))


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
    with pytest.raises(OutputError, match=r"its weights would replace their own source, n.onnx.data"):
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
    assert "only files in the model's folder are read" in message(path)


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
