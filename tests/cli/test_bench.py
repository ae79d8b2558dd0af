"""`onnxq bench` as users run it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from support import command
from support.build import qdq

TEXT = "g (float[N,6] x) => (float[N,4] y) <float[6,4] w> { [fc] m = MatMul(x, w) [act] y = Relu(m) }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.onnx and b.onnx are alike, z.onnx takes another input, f.onnx has its batch fixed; data.npz holds 8 samples."""
    onnx.save(qdq.proto(TEXT), tmp_path / "a.onnx")
    onnx.save(qdq.proto(TEXT, seed=1), tmp_path / "b.onnx")
    onnx.save(qdq.proto(TEXT.replace("x", "z")), tmp_path / "z.onnx")
    onnx.save(qdq.proto(TEXT.replace("N", "2")), tmp_path / "f.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((8, 6), np.float32))
    return tmp_path


def test_side_by_side(folder: Path) -> None:
    done = command.succeed("bench", "a.onnx", "--against", "b.onnx", "--threads", 1, "--repeats", 20, cwd=folder)
    head, first, second = done.out.splitlines()[:3]
    assert head.split() == ["model", "runtime", "median", "ms", "p10", "p90", "ratio", "runs"]
    assert first.startswith("a.onnx  onnxruntime")
    assert first.split()[-2:] == ["1.00×", "20"]
    assert second.startswith("b.onnx  onnxruntime")
    assert "x float32 1x6; 1 thread(s); " in done.out


def test_layers(folder: Path) -> None:
    options = ("--batch", 3, "--threads", 1, "--seconds", 0.01, "--per-layer", "-q")
    done = command.inside("bench", "a.onnx", *options, cwd=folder)
    assert done.code == 0, done.err
    assert done.err == ""
    rows = [line.split() for line in done.out.splitlines()]
    assert any(row[:2] == ["fc", "MatMul"] for row in rows)
    assert "x float32 3x6" in done.out
    assert "its own fastest layer); largest losses against it:" in done.out
    assert any(row[:2] == ["act", "(Relu):"] for row in rows)


def test_json_file_and_printed(folder: Path) -> None:
    options = ("--data", "data.npz", "--batch-size", 4, "--repeats", 2, "--per-layer", "--seconds", 0.01)
    done = command.inside("bench", "a.onnx", "--against", "b.onnx", *options, "--json", "b.json", cwd=folder)
    assert "wrote b.json" in done.err
    told = json.loads((folder / "b.json").read_text())
    printed = json.loads(command.inside("bench", "a.onnx", *options, "--json", "-", cwd=folder).out)
    for found, models in ((told, ["a.onnx", "b.onnx"]), (printed, ["a.onnx"])):
        assert [t["model"] for t in found["timings"]] == models
        assert found["inputs"] == {"x": "float32 4x6"}
        assert found["batch_size"] == 4
        assert {"fc", "act"} == {layer["node"] for layer in found["layers"]["layers"]}


def test_what_was_assumed_is_said(folder: Path) -> None:
    onnx.save(
        qdq.proto("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"),
        folder / "i.onnx",
    )
    done = command.inside("bench", "i.onnx", "--repeats", 1, cwd=folder)
    assert "unknown height or width assumed to be 224; --input-shape x:DIMS sets it" in done.err
    done = command.inside("bench", "i.onnx", "--repeats", 1, "--input-shape", "x:2x3x4x4", cwd=folder)
    assert "x float32 2x3x4x4; each runtime's default number of threads" in done.out


def test_refusals_are_one_line_and_leave_nothing(folder: Path) -> None:
    before = command.listing(folder)
    for args, told in (
        (["none.onnx"], "no such file"),
        (["a.onnx", "--against", "none.onnx"], "no such file"),
        (["a.onnx", "--against", "z.onnx"], "z.onnx has inputs z, the first model x"),
        (["a.onnx", "--against", "f.onnx", "--batch", 3], "f.onnx: onnxruntime cannot run it on these inputs"),
        (["f.onnx", "--batch", 3], "its batch is fixed to 2"),
        (["a.onnx", "--data", "data.npz", "--batch", 9], "8 sample(s) for a batch of 9"),
        (["a.onnx", "--data", "none.npz"], "no such file"),
        (["a.onnx", "--input-shape", "x=1x6"], "write NAME:DIMS"),
        (["a.onnx", "--repeats", 0], "--repeats"),
        (["a.onnx", "--seconds", 0], "--seconds"),
        (["a.onnx", "--json", "no/b.json"], "does not exist"),
        (["openvino:a.onnx", "--per-layer"], "times per layer come from onnxruntime"),
    ):
        assert told in command.error_of(command.inside("bench", *args, cwd=folder))
    assert command.listing(folder) == before
