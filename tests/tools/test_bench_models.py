"""The model benchmark on a small network: the models that it makes, those that it keeps, its figures."""

from __future__ import annotations

import json
from pathlib import Path

import bench_models
import onnx
import pytest

from bench_support import networks, references, report
from bench_support.phases import Sample, fastest_probe, phases
from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.execution import library
from onnxq.graph.model import load


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every model is a ResNet of 10 layers for 64×64 images, data are generated; returns the names that were built."""
    built: list[str] = []

    def build(name: str) -> onnx.ModelProto:
        built.append(name)
        return networks.resnet(10, size=64, width=16, classes=20)

    monkeypatch.setattr(networks, "build", build)
    monkeypatch.setattr(references, "SHARED", Path("nowhere"))
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
    settings = {"models": "resnet18", "batch": "1,2", "threads": 1, "seconds": 0.05, "turns": 2, "images": 8}
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    args = bench_models.parser().parse_args([*options, "--workdir", str(tmp_path), "--per-layer"])
    graph = load(networks.build("resnet18")).graph
    macs = totals(graph, layer_costs(graph)).macs
    result = {"environment": report.environment(), "rows": bench_models.run(args)}
    assert [(row["name"], row["batch"], row["threads"]) for row in result["rows"]] == [
        ("resnet18", b, 1) for b in (1, 2)
    ]
    for row in result["rows"]:
        assert set(row["timings"]) == {"onnxq", "OpenVINO int8", "onnxruntime int8", "onnxruntime float"}
        assert row["versions"]["OpenVINO int8"].startswith("openvino")
        for found in row["timings"].values():
            assert found["fast"] + found["slow"] >= 2
            assert all(
                ms > 0 for ms in (found["min_ms"], found["median_ms"], found["slow_median_ms"]) if ms is not None
            )
        assert sum(layer["macs"] for layer in row["layers"]["layers"]) == row["batch"] * macs
    assert json.loads(json.dumps(result))["rows"][1]["batch"] == 2
    cells = bench_models.cells(result)
    assert [len(line) for line in cells] == [len(bench_models.heads(result))] * 2


def test_runs_beside_a_neighbour_are_told_apart_by_their_probes() -> None:
    samples = [Sample(1.0, 4.0, 4.1), Sample(3.0, 4.0, 9.0), Sample(2.0, 9.0, 4.0), Sample(1.4, 4.4, 4.0)]
    fastest = fastest_probe(samples)
    assert fastest == 4.0
    found = phases(samples, fastest)
    assert (found.fast, found.min_ms, found.median_ms) == (2, 1000.0, pytest.approx(1200.0))
    assert (found.slow, found.slow_median_ms) == (2, 2500.0)
    assert phases(samples[1:3], fastest).min_ms is None
