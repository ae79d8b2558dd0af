"""External data: only regular files of the model's own folder are read, whatever a model says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.errors import OnnxqError
from onnxq.execution.save import save
from onnxq.graph import model as module
from onnxq.graph.model import load, to_proto

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
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])


PLACES = [where_initializer, where_constant, where_subgraph, where_function]


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
    return inside


LOCATIONS = [
    "../secret.txt", "sub/../../secret.txt", "link", "linked/w", "own-link", "hard", "fifo", "sub", "", ".", "missing",
    "C:\\secret", "..\\secret.txt", "C:w", "w\0x", "/dev/zero", "ABSOLUTE",
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
    assert "\n" not in str(told.value)


ENTRIES = [
    {"offset": "-1"}, {"offset": "99999999999999999999"}, {"offset": "1e3"}, {"offset": "x"}, {"offset": "21"},
    {"offset": "٣"}, {"length": "-20"}, {"length": "19"}, {"length": "21"}, {"length": "9" * 5000}, {"length": " 20"},
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
@pytest.mark.parametrize("place", PLACES[:3])
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
    assert values and all(np.array_equal(v, np.arange(4, 24, dtype=np.uint8)) for v in values)
