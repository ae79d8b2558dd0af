"""`onnxq eval` as users run it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from support import command
from support.build import qdq

TEXT = "g (float[N,6] x) => (float[N,6] y) <float[6,6] w> { [fc] y = MatMul(x, w) }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """m.onnx passes its input on, r.onnx mirrors it; data.npz holds 8 samples of which 6 are labelled right."""
    onnx.save(qdq.proto(TEXT, w=np.eye(6, dtype=np.float32)), tmp_path / "m.onnx")
    onnx.save(qdq.proto(TEXT, w=-np.eye(6, dtype=np.float32)), tmp_path / "r.onnx")
    labels = np.arange(8) % 6
    x = np.eye(6, dtype=np.float32)[labels]
    labels[:2] = 5
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    np.savez(tmp_path / "plain.npz", x=x)
    return tmp_path


def test_accuracy_and_speed(folder):
    done = command.succeed("eval", "m.onnx", "--data", "data.npz", "--threads", 1, cwd=folder)
    assert "75.00 % ± 15.31" in done.out
    assert "ms per sample" in done.out
    assert "1 thread(s)" in done.out


def test_against_the_float_model_with_json(folder):
    done = command.succeed(
        "eval", "r.onnx", "--against", "m.onnx", "--data", "data.npz", "--json", "e.json", "--batch-size", 3, cwd=folder
    )
    assert "agreement with m.onnx: 0.00 %" in done.out
    assert "output y: SQNR -6.02 dB, cosine -1.000000, largest error 2" in done.out
    told = json.loads((folder / "e.json").read_text())
    assert (told["samples"], told["labelled"], told["batch_size"]) == (8, 8, 3)
    assert told["against"]["top1"] == 0.75
    assert told["against"]["lost"] == 6
    printed = command.succeed("eval", "r.onnx", "--against", "m.onnx", "--data", "data.npz", "--json", "-", cwd=folder)
    assert json.loads(printed.out)["against"]["outputs"] == told["against"]["outputs"]


def test_without_labels(folder):
    done = command.succeed("eval", "m.onnx", "--data", "plain.npz", cwd=folder)
    assert "top-1" not in done.out
    assert "samples/s" in done.out


def test_refusals_are_one_line_and_leave_nothing(folder):
    before = command.listing(folder)
    for args, told in (
        (["eval", "m.onnx"], "eval needs data"),
        (["eval", "none.onnx", "--data", "data.npz"], "no such file"),
        (["eval", "m.onnx", "--data", "none.npz"], "no such file"),
        (["eval", "m.onnx", "--data", "data.npz", "--output", "z"], "has no tensor 'z'"),
        (["eval", "m.onnx", "--data", "data.npz", "--json", "no/e.json"], "does not exist"),
    ):
        assert told in command.error_of(command.onnxq(*args, cwd=folder))
    assert command.listing(folder) == before


def test_notes_on_the_data_are_printed_once(folder):
    text = "g (float[N,1,H,W] x) => (float[N,1,H,W] y) <float[1,1,1,1] w> { [c] y = Conv(x, w) }"
    onnx.save(qdq.proto(text), folder / "open.onnx")
    done = command.succeed("eval", "open.onnx", "--random-data", 1, cwd=folder)
    assert done.err.count("unknown height or width assumed to be 224") == 1
