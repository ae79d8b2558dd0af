"""Models saved: a model that cannot be written or run leaves the old file untouched."""

import os
import stat
from pathlib import Path

import pytest

from onnxq.errors import ModelError, OutputError
from onnxq.execution import save
from support.build import floating
from support.prove.files import NET, names


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
    with pytest.raises(ModelError, match="the generated model is invalid"):
        save.save(source, target)
    assert target.read_bytes() == b"the old one"
    assert names(tmp_path) == ["m.onnx"]


def test_a_model_that_onnxruntime_refuses_leaves_the_old_file(tmp_path):
    target = tmp_path / "m.onnx"
    target.write_bytes(b"the old one")
    with pytest.raises(ModelError, match="onnxruntime"):
        save.save(
            floating.model("g (double[2,2] x) => (double[2,2] y) { y = Hardmax(x) }"), target
        )  # it has float32 only
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
