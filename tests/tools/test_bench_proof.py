"""The benchmark of the proof: what it measures, how it judges it, and that it continues from its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from bench_proof import Row, Spent, findings, kept, main, measured

from onnxq.data.source import input_specs, open_data
from onnxq.graph.model import load


def small(_model: str, samples: int) -> tuple[onnx.ModelProto, Any]:
    """A network of one layer, and its data."""
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,6] x) => (float[1,4] y) { y = MatMul(x, w) }'
    )
    rng = np.random.default_rng(0)
    made.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(6, 4)).astype(np.float32), "w"))
    data = [{"x": rng.normal(size=(1, 6)).astype(np.float32)} for _ in range(samples)]
    return made, open_data(data, input_specs(load(made).graph))


@pytest.mark.parametrize(
    ("none", "quick", "cheap"),
    [
        ((1.0, 1.2, 1.1), (3.9, 4.0, 3.8), True),  # under 3 s
        ((40.0, 42.0, 41.0), (43.5, 45.5, 44.5), True),  # under 10 %
        ((20.0, 21.0, 20.5), (24.0, 25.0, 24.5), False),
    ],
)
def test_a_proof_is_cheap_if_it_adds_little_or_a_small_part(none: Any, quick: Any, cheap: bool) -> None:
    spent = [tuple(Spent(wall, wall / 2) for wall in walls) for walls in (none, quick)]
    row = Row("m", "p", *spent, {"runs": [], "findings": []})
    assert row.cheap == cheap and (row.cells()[-1] == "OVER") != cheap
    assert row.added("wall")[0] == pytest.approx(min(quick) - min(none))
    assert row.added("user")[1] == pytest.approx(sorted(q - n for n, q in zip(none, quick, strict=True))[1] / 2)


def test_what_is_measured_is_the_command_with_and_without_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench_proof.source", small)
    row = measured("m", "onnxruntime-cpu", 2, 1, 4)
    assert len(row.none) == len(row.quick) == 2
    worst, as_run = row.decibels(False), row.decibels(True)
    assert worst is not None and as_run is not None and min(worst, as_run) > 30
    assert row.cells()[:2] == ["m", "onnxruntime-cpu"] and "none" in row.cells()
    assert not list(findings([row]))
    assert measured("m", "tvm", 1, 1, 4).cells()[3] == "–"  # nothing here runs it


def test_it_continues_from_its_file_and_lists_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench_proof.source", small)
    file = tmp_path / "proof.json"
    command = ["bench_proof.py", "--models", "m", "--profiles", "tvm", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    table = json.loads(file.read_text())
    table["rows"][0]["proof"]["findings"] = [{"kind": "low", "cause": "", "text": "output y is low"}]
    file.write_text(json.dumps(table))
    monkeypatch.setattr(sys, "argv", [*command, "--profiles", "tvm,qnn"])
    main()
    assert [row.profile for row in kept(file)] == ["tvm", "qnn"]
    shown = capsys.readouterr().out
    assert "m, tvm: output y is low" in shown and shown.count("| m | qnn |") == 1
