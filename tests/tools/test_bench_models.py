"""The model benchmark: what it makes, what it keeps, what it tells. On a network small enough for a test."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import bench_models
import bench_report
import models
import onnx
import pytest

from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.execution import library
from onnxq.graph.model import load


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every model is a ResNet of 10 layers for 64×64 images, data are generated; returns the names that were built."""
    built: list[str] = []

    def build(name: str) -> onnx.ModelProto:
        built.append(name)
        return models.resnet(10, size=64, width=16, classes=20)

    monkeypatch.setattr(models, "build", build)
    monkeypatch.setattr(models, "SHARED", Path("nowhere"))
    return built


def test_models_are_made_once(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = bench_models.prepare("resnet18", tmp_path, 8)
    again = bench_models.prepare("resnet18", tmp_path, 8)
    assert files == again
    assert small == ["resnet18"]
    assert {"QuantizeLinear", "Conv"} <= set(bench_models.operators(files.qdq))
    lowered = bench_models.operators(files.ours)
    assert lowered["QuantizeLinear"] == 1
    assert lowered["DequantizeLinear"] == 1
    assert not {"Conv", "Gemm", "Add", "Relu"} & set(lowered)
    assert lowered["com.onnxq.ConvAdd"] == 4
    assert sum(count for op, count in lowered.items() if op in ("com.onnxq.Conv", "com.onnxq.ConvAdd")) == 12
    for path in (files.qdq, files.ours):
        assert bench_models.sqnr(files, path, "resnet18") > 15
    monkeypatch.setattr(bench_models, "sources", lambda: "changed")
    bench_models.prepare("resnet18", tmp_path, 8)
    assert len(small) == 2


@pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
def test_a_row_for_every_setting(small: list[str], tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
    args = Namespace(
        models="resnet18", batch="1,2", threads="1", seconds=0.01, images=8, workdir=tmp_path, per_layer=True
    )
    graph = load(models.build("resnet18")).graph
    macs = totals(graph, layer_costs(graph)).macs
    result = {"environment": bench_report.environment(), "rows": bench_models.run(args)}
    assert [(row["name"], row["batch"], row["threads"]) for row in result["rows"]] == [
        ("resnet18", b, 1) for b in (1, 2)
    ]
    for row in result["rows"]:
        assert set(row["timings"]) == {"ours", "int8", "openvino", "float"}
        assert row["timings"]["openvino"]["runtime"] == "openvino"
        assert all(t["median_ms"] > 0 for t in row["timings"].values())
        assert sum(layer["macs"] for layer in row["layers"]["layers"]) == row["batch"] * macs
    assert json.loads(json.dumps(result))["rows"][1]["batch"] == 2
    cells = bench_models.cells(result)
    assert [len(line) for line in cells] == [len(bench_models.HEADS)] * 2
