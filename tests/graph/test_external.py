"""External data: only regular files of the model's own folder are read, whatever a model says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.errors import ModelError, OnnxqError
from onnxq.execution import runtime
from onnxq.execution import save as saving
from onnxq.execution.competitors import open_competitor
from onnxq.execution.runtime import session
from onnxq.execution.save import save
from onnxq.graph import external
from onnxq.graph import model as module
from onnxq.graph.model import load, to_proto
from onnxq.graph.safe_open import open_inside

SECRET = b"TOP-SECRET-CONTENT!!"


def tensor(location: str, **entries: str) -> TensorProto:
    """A tensor of 20 bytes in an external file."""
    found = TensorProto(name="s", data_type=TensorProto.UINT8, dims=[20], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        found.external_data.add(key=key, value=value)
    return found


def where_initializer(t: TensorProto) -> onnx.ModelProto:
    return made([helper.make_node("Cast", ["s"], ["c"], to=1)], [t])


def where_constant(t: TensorProto) -> onnx.ModelProto:
    return made([helper.make_node("Constant", [], ["s"], value=t), helper.make_node("Cast", ["s"], ["c"], to=1)], [])


def where_subgraph(t: TensorProto) -> onnx.ModelProto:
    out = [helper.make_empty_tensor_value_info("i")]
    branch = helper.make_graph([helper.make_node("Cast", ["s"], ["i"], to=1)], "b", [], out, [t])
    flag = helper.make_tensor("f", TensorProto.BOOL, [], [True])
    return made([helper.make_node("If", ["f"], ["c"], then_branch=branch, else_branch=branch)], [flag])


def where_function(t: TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], ["s"], value=t), helper.make_node("Cast", ["s"], ["c"], to=1)]
    body = helper.make_function("local", "F", [], ["c"], nodes, [helper.make_opsetid("", 17)])
    return made([helper.make_node("F", [], ["c"], domain="local")], [], [body])


def made(
    nodes: list[onnx.NodeProto], constants: list[TensorProto], functions: list[onnx.FunctionProto] | None = None
) -> onnx.ModelProto:
    nodes = [*nodes, helper.make_node("Add", ["x", "c"], ["y"])]
    value = [helper.make_tensor_value_info(n, 1, [20]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("local", 1), ("com.onnxq", 1))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])


def where_kernel_body(t: TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], ["s"], value=t), helper.make_node("Cast", ["s"], ["c"], to=1)]
    body = helper.make_function("com.onnxq", "F", [], ["c"], nodes, [helper.make_opsetid("", 17)])
    return made([helper.make_node("F", [], ["c"], domain="com.onnxq")], [], [body])


def where_default(t: TensorProto) -> onnx.ModelProto:
    """The default of a function's attribute, which nothing reads."""
    model = where_function(helper.make_tensor("k", TensorProto.UINT8, [20], bytes(20), raw=True))
    default = model.functions[0].attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR)
    default.t.CopyFrom(t)
    return model


def where_unused(t: TensorProto) -> onnx.ModelProto:
    constant = helper.make_tensor("k", TensorProto.UINT8, [20], bytes(20), raw=True)
    return made([helper.make_node("Cast", ["k"], ["c"], to=1)], [constant, t])


def where_sparse_values(t: TensorProto) -> onnx.ModelProto:
    model = where_unused(helper.make_tensor("n", TensorProto.UINT8, [1], [0]))
    sparse = model.graph.sparse_initializer.add(dims=[20])
    sparse.values.CopyFrom(t)
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [20], range(20)))
    return model


def where_sparse_indices(t: TensorProto) -> onnx.ModelProto:
    model = where_sparse_values(helper.make_tensor("v", TensorProto.UINT8, [20], bytes(20), raw=True))
    model.graph.sparse_initializer[0].indices.CopyFrom(t)
    return model


def where_sparse_attribute(t: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["s"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.CopyFrom(where_sparse_values(t).graph.sparse_initializer[0])
    return made([node, helper.make_node("Cast", ["s"], ["c"], to=1)], [])


def where_tensor_list(t: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Some", [], ["c"], domain="local")
    node.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(t)
    return made([node], [])


def where_training(t: TensorProto) -> onnx.ModelProto:
    model = where_unused(helper.make_tensor("n", TensorProto.UINT8, [1], [0]))
    model.training_info.add().algorithm.initializer.append(t)
    return model


READ = [where_initializer, where_constant, where_subgraph, where_function, where_kernel_body]
PLACES = [
    *READ, where_default, where_unused, where_sparse_values, where_sparse_indices, where_sparse_attribute,
    where_tensor_list, where_training,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with good weights in it and a secret beside it."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w").write_bytes(SECRET)
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    for name in ("w", "sub/w"):
        (inside / name).write_bytes(bytes(range(40)))
    (inside / "link").symlink_to(tmp_path / "secret.txt")
    (inside / "linked").symlink_to(tmp_path / "outside")
    (inside / "own-link").symlink_to(inside / "w")
    os.link(tmp_path / "secret.txt", inside / "hard")
    os.mkfifo(inside / "fifo")
    (inside / "memory").mkdir()
    (inside / "memory" / "_ORT_MEM_ADDR_").write_bytes(bytes(40))  # a file of the name that means memory
    return inside


LOCATIONS = [
    "../secret.txt", "sub/../../secret.txt", "link", "linked/w", "own-link", "hard", "fifo", "sub", "", ".", "missing",
    "C:\\secret", "..\\secret.txt", "C:w", "w\0x", "/dev/zero", "ABSOLUTE", "w/w",
    "x" * 5000, "x" * 300, "x/" * 2000, "x/" * 500_000, "//host/share", "\\\\host\\share",
    "two\nlines\x1b[31m", "*/_ORT_MEM_ADDR_/*", "memory/_ORT_MEM_ADDR_",
]  # fmt: skip


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", LOCATIONS)
def test_other_files_are_refused(
    folder: Path, location: str, place: Callable[[TensorProto], onnx.ModelProto], limit: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if limit is not None:
        monkeypatch.setattr(module, "INLINE_LIMIT", limit)
    location = str(folder.parent / "secret.txt") if location == "ABSOLUTE" else location
    path = folder / "m.onnx"
    path.write_bytes(place(tensor(location)).SerializeToString())
    with pytest.raises(OnnxqError, match="tensor s") as told:
        load(path)
    assert str(told.value).isprintable() and len(str(told.value)) < 600


ENTRIES = [
    {"offset": "-1"}, {"offset": "99999999999999999999"}, {"offset": "1e3"}, {"offset": "x"}, {"offset": "21"},
    {"offset": "٣"}, {"length": "-20"}, {"length": "19"}, {"length": "21"}, {"length": "9" * 5000}, {"length": " 20"},
    {"offset": ""}, {"length": ""}, {"length": "0"}, {"offset": "9223372036854775807"},
]  # fmt: skip


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
@pytest.mark.parametrize("entries", ENTRIES)
def test_other_ranges_are_refused(
    folder: Path, entries: dict[str, str], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setattr(module, "INLINE_LIMIT", limit)
    path = folder / "m.onnx"
    path.write_bytes(where_initializer(tensor("w", **entries)).SerializeToString())
    with pytest.raises(OnnxqError, match="tensor s"):
        load(path)


def test_two_entries_of_one_kind_are_refused(folder: Path) -> None:
    double = tensor("w")
    double.external_data.add(key="location", value="sub/w")
    (folder / "m.onnx").write_bytes(where_initializer(double).SerializeToString())
    with pytest.raises(OnnxqError, match="two entries 'location'"):
        load(folder / "m.onnx")


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
@pytest.mark.parametrize("place", READ)
@pytest.mark.parametrize("location", ["w", "sub/w", "./w"])
def test_files_of_the_folder_are_read(
    folder: Path, tmp_path: Path, location: str, place: Callable[[TensorProto], onnx.ModelProto], limit: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if limit is not None:
        monkeypatch.setattr(module, "INLINE_LIMIT", limit)
    path = folder / "m.onnx"
    path.write_bytes(place(tensor(location, offset="4", length="20")).SerializeToString())
    found = load(path)
    save(found, tmp_path / "out.onnx")
    again = load(tmp_path / "out.onnx")
    constants = [t for t in module.tensor_protos(to_proto(again).graph) if list(t.dims) == [20]]
    values = [onnx.numpy_helper.to_array(t, str(tmp_path)) for t in constants]
    assert (
        not external.check_external(onnx.load(tmp_path / "out.onnx", load_external_data=False), tmp_path, "")
        or limit == 0
    )
    ran = session(tmp_path / "out.onnx").run(None, {"x": np.zeros(20, np.float32)})
    assert np.array_equal(ran[0], np.arange(4, 24))
    assert all(np.array_equal(v, np.arange(4, 24, dtype=np.uint8)) for v in values)


SIZES = [
    (TensorProto.UINT8, [-4, -5]), (TensorProto.UINT8, [2**32, 2**32]), (TensorProto.FLOAT, [2**62]),
    (TensorProto.UINT8, [2**40]), (TensorProto.UINT8, [21]), (TensorProto.INT4, [41]), (TensorProto.UINT8, []),
    (TensorProto.STRING, [1]), (TensorProto.UNDEFINED, [20]), (99, [20]), (-1, [20]),
]  # fmt: skip


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
@pytest.mark.parametrize(("kind", "dims"), SIZES)
def test_other_sizes_are_refused(
    folder: Path, kind: int, dims: list[int], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setattr(module, "INLINE_LIMIT", limit)
    other = tensor("w", length="20")
    other.data_type = kind
    other.dims[:] = dims
    path = folder / "m.onnx"
    path.write_bytes(where_initializer(other).SerializeToString())
    with pytest.raises(ModelError, match="tensor s"):
        load(path)


@pytest.mark.parametrize("unused", [0, 500_000_000], ids=["inline", "left in files"])
def test_without_a_length_the_tensor_is_as_long_as_its_type_says(folder: Path, tmp_path: Path, unused: int) -> None:
    """The second size is that of a tensor in a file of holes, which nothing reads: the limit itself is not touched."""
    plain = tensor("w", offset="2", checksum="0", other="1")
    plain.raw_data = bytes(20)  # what is in the file counts
    model = where_initializer(plain)
    if unused:
        with open(folder / "holes", "wb") as holes:
            holes.truncate(4 * unused)
        large = tensor("holes")
        large.name, large.data_type, large.dims[:] = "unused", TensorProto.FLOAT, [unused]
        model.graph.initializer.append(large)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    save(load(folder / "m.onnx"), tmp_path / "out.onnx")
    ran = session(tmp_path / "out.onnx").run(None, {"x": np.zeros(20, np.float32)})
    assert np.array_equal(ran[0], np.arange(2, 22))


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_packed_values_are_read(folder: Path, kind: int, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if limit is not None:
        monkeypatch.setattr(module, "INLINE_LIMIT", limit)
    packed = tensor("w", offset="1", length="10")
    packed.data_type = kind
    (folder / "m.onnx").write_bytes(where_initializer(packed).SerializeToString())
    (cast,) = (n for n in load(folder / "m.onnx").graph.nodes if n.op == "Cast")
    expected = [nibble for byte in range(1, 11) for nibble in (byte % 16, byte // 16)]
    signed = [v - 16 if kind == TensorProto.INT4 and v > 7 else v for v in expected]
    assert np.asarray(cast.inputs[0].values).astype(int).tolist() == signed


def test_the_folder_may_be_the_current_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for location, message in (
        ("linked/w", "symbolic link"),
        ("hard", "hard link"),
        ("../secret.txt", "plain relative"),
    ):
        Path("m.onnx").write_bytes(where_initializer(tensor(location)).SerializeToString())
        for source in (Path("m.onnx"), Path("m.onnx").read_bytes(), where_initializer(tensor(location))):
            with pytest.raises(ModelError, match=message):
                load(source)
    Path("m.onnx").write_bytes(where_initializer(tensor("sub/w")).SerializeToString())
    load("m.onnx")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "m.onnx").write_bytes(where_initializer(tensor("sub/w")).SerializeToString())
    (tmp_path / "alias").symlink_to(folder)
    load(tmp_path / "alias" / "m.onnx")


@pytest.mark.parametrize("location", ["../secret.txt", "link", "hard", "*/_ORT_MEM_ADDR_/*", "ABSOLUTE"])
@pytest.mark.parametrize("place", [where_initializer, where_constant, where_subgraph, where_function])
def test_no_runtime_opens_what_is_not_resolved(
    folder: Path, location: str, place: Callable[[TensorProto], onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(runtime, "_open", lambda *_: pytest.fail("opened"))
    location = str(folder.parent / "secret.txt") if location == "ABSOLUTE" else location
    model = place(tensor(location))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    for source in (folder / "m.onnx", str(folder / "m.onnx"), "m.onnx", model.SerializeToString(), model):
        with pytest.raises(ModelError, match="tensor s"):
            session(source)


def test_openvino_opens_only_what_is_resolved(folder: Path) -> None:
    pytest.importorskip("openvino")
    (folder / "m.onnx").write_bytes(where_initializer(tensor("../secret.txt")).SerializeToString())
    with pytest.raises(ModelError, match="plain relative path"):
        open_competitor(folder / "m.onnx", {"x": np.zeros(20, np.float32)}, openvino=True)


@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
def test_a_file_that_changes_after_loading_is_resolved_again(
    folder: Path, tmp_path: Path, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights left in files are read when the model is saved or run: a link put there meanwhile is not followed."""
    if limit is not None:
        for owner in (module, saving):
            monkeypatch.setattr(owner, "INLINE_LIMIT", limit)
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    (folder / "m.onnx").write_bytes(where_initializer(tensor("w", length="20")).SerializeToString())
    model = load(folder / "m.onnx")
    (folder / "w").unlink()
    (folder / "w").symlink_to(tmp_path / "secret.txt")
    if limit is None:
        save(model, tmp_path / "out.onnx")  # has the values
    else:
        with pytest.raises(ModelError, match="symbolic link"):
            save(model, tmp_path / "out.onnx")
        with pytest.raises(ModelError, match="symbolic link"), saving.runnable(to_proto(model), folder):
            pass
    written = [file for file in tmp_path.iterdir() if file.name.startswith("out.onnx")]
    assert not any(SECRET in file.read_bytes() for file in written)


@pytest.mark.parametrize("location", ["link", "linked/w", "own-link", "hard", "fifo", "sub", "short"])
@pytest.mark.parametrize("limit", [None, 0], ids=["inline", "left in files"])
def test_a_file_replaced_after_it_was_resolved_is_not_read(
    folder: Path, tmp_path: Path, location: str, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of a file and its opening another may be put in its place."""
    (folder / "short").write_bytes(bytes(19))
    if limit is not None:
        for owner in (module, saving):
            monkeypatch.setattr(owner, "INLINE_LIMIT", limit)
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    monkeypatch.setattr(external, "_regular", lambda *_: 40)  # what was there when it was looked at
    (folder / "m.onnx").write_bytes(where_initializer(tensor(location, length="20")).SerializeToString())
    with pytest.raises(ModelError, match=r"tensor s\)"):
        save(load(folder / "m.onnx"), tmp_path / "out.onnx")
    assert not list(tmp_path.glob("out.onnx*"))


def test_files_in_folders_are_opened(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    for base in (folder, tmp_path / "alias"):
        for name in ("w", "sub/w"):
            with open_inside(base, Path(name)) as file:
                assert file.read() == bytes(range(40))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("linked/w", "hard", "fifo", "sub", "missing", "w/w"):
        with pytest.raises(OSError):
            open_inside(folder, Path(name))
    assert len(list(Path("/proc/self/fd").iterdir())) == handles
