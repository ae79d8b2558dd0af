"""onnxq sensitivity: the table, the file, and what it says to mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxq import demo
from onnxq.graph.model import load
from onnxq.search.sensitivity import load_sensitivity
from support.command import error_of, inside, succeed

FEW = ("--limit", 8, "--batch-size", 4, "--bits", "8,4,2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model and some of its images."""
    path = tmp_path_factory.mktemp("sensitivity")
    (path / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(path / "d.npz", **{k: v[:16] for k, v in demo.calibration_data().items()})
    return path


def test_a_table_with_the_most_sensitive_first_and_the_file(folder):
    done = succeed("sensitivity", "m.onnx", "--data", "d.npz", "-o", "s.json", "--probes", 2, *FEW, cwd=folder)
    found = load_sensitivity(folder / "s.json", load(folder / "m.onnx").sha256)
    lines = done.out.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("weights"))
    assert lines[heading].split() == ["weights", "8", "bits", "4", "bits", "2", "bits", "±", "%"]
    rows = [line.split() for line in lines[heading + 1 :] if line.startswith(("stem", "block", "head"))]
    assert [row[0] for row in rows] == sorted(found.weights(2), key=lambda n: -found.weights(2)[n])
    assert float(rows[0][3]) == pytest.approx(max(found.weights(2).values()), rel=5e-3)
    assert lines[-1] == "wrote s.json"
    assert found.created["samples"] == 8


def test_weight_error_without_data_and_activations_in_a_table_of_their_own(folder):
    assert inside("sensitivity", "m.onnx", "-o", "w.json", "--method", "weight-error", cwd=folder).code == 0
    assert load_sensitivity(folder / "w.json").method == "weight-error"
    how = ("--method", "one-at-a-time", "--data", "d.npz", "--limit", 8, "--bits", "8", "--activation-bits", "8,4")
    done = inside("sensitivity", "m.onnx", "-o", "a.json", *how, cwd=folder)
    assert done.code == 0, done.err
    assert any(line.startswith("activations") for line in done.out.splitlines())
    assert load_sensitivity(folder / "a.json").of("activations")


def test_a_resumed_run_gives_the_same_file(folder):
    how = ("sensitivity", "m.onnx", "--data", "d.npz", "--probes", 3, "--budget", "none", *FEW, "-q")
    for name in ("one", "two"):
        done = inside(*how, "-o", f"{name}.json", "--resume", "state", cwd=folder)
        assert (done.code, done.out) == (0, "")
    one, two = (json.loads((folder / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one["layers"] == two["layers"]
    done = inside(*how, "-o", "x.json", "--resume", "state", "--seed", 1, cwd=folder)
    assert "state: was started with different probes" in error_of(done)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-o", "s.json"], "method hessian needs data"),
        (["-o", "no/s.json", "--data", "d.npz"], "the folder no does not exist"),
        (["-o", "s.json", "--data", "d.npz", "--bits", "8,x"], "--bits '8,x': expected widths separated by commas"),
        (["-o", "s.json", "--data", "d.npz", "--bits", "9"], "supports weights of"),
        (["-o", "s.json", "--data", "d.npz", "--budget", "soon"], "--budget 'soon'"),
        (["-o", "s.json", "--data", "d.npz", "--probes", "1"], "1 probes: at least 2"),
        (["-o", "s.json", "--data", "d.npz", "--output-tensor", "z"], "has no tensor 'z'"),
        (["-o", "s.json", "--data", "d.npz", "--exclude", "stem/cov"], "did you mean 'stem/conv'?"),
        (["-o", "s.json", "--method", "weight-error", "--activation-bits", "8"], "measures only weights"),
        (["-o", "s.json", "--data", "d.npz", "--resume", "d.npz"], "d.npz: not a state"),
    ],
)
def test_mistakes(folder, arguments, told):
    before = sorted(folder.iterdir())
    assert told in error_of(inside("sensitivity", "m.onnx", *arguments, cwd=folder))
    assert sorted(folder.iterdir()) == before
