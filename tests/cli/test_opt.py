"""onnxq opt: pipelines over a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq import demo
from support.cases.zoo import KINDS
from support.command import listing, succeed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model and images to calibrate on."""
    folder = tmp_path_factory.mktemp("opt")
    (folder / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(folder / "d.npz", image=demo.calibration_data()["image"][:24])
    return folder


def ops(path: Path) -> set[str]:
    """Operators of a model."""
    return {node.op_type for node in onnx.load(path).graph.node}


def test_passes_report_what_they_did(folder: Path, tmp_path: Path) -> None:
    text = "fold-constants{max_bytes=1000},fold-batchnorm"
    done = succeed("opt", "m.onnx", "-o", tmp_path / "o.onnx", "-p", text, "--verify", "--data", "d.npz", cwd=folder)
    lines = done.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [lines[0], lines[2]]
    assert lines[0].startswith("fold-constants{max_bytes=1000}: ") and lines[2].startswith("fold-batchnorm: 11 changed")
    assert lines[1].startswith("  verified: output logits differs by at most 0")
    assert done.err.splitlines()[-1] == f"wrote {tmp_path / 'o.onnx'}"
    assert "BatchNormalization" not in ops(tmp_path / "o.onnx")


def test_a_whole_quantization_as_a_pipeline(folder: Path, tmp_path: Path) -> None:
    text = (
        "fold-constants,eliminate-identity,fold-batchnorm,assign-bits{weights=4 first_last=none},"
        "convert-opset{version=21},calibrate{profile=onnxruntime-cpu},insert-qdq{calibration=percentile:99.9},fuse-activation-clips"
    )
    done = succeed("opt", "m.onnx", "-o", tmp_path / "o.onnx", "-p", text, "--data", "d.npz", cwd=folder)
    assert "RANDOM" not in done.err
    made = onnx.load(tmp_path / "o.onnx")
    types = [t.data_type for t in made.graph.initializer if t.name.endswith("_quantized")]
    assert types.count(onnx.TensorProto.INT4) == 12 and onnx.TensorProto.INT8 not in types


def test_insert_qdq_without_data_says_random(folder: Path, tmp_path: Path) -> None:
    args = ("-p", "fold-batchnorm,insert-qdq{profile=fbgemm}")
    done = succeed("opt", "m.onnx", "-o", tmp_path / "o.onnx", *args, cwd=folder)
    assert "RANDOM" in done.err and "calibrate{profile=fbgemm}" in done.out
    assert "QuantizeLinear" in ops(tmp_path / "o.onnx")


def test_insert_qdq_from_statistics(folder: Path, tmp_path: Path) -> None:
    succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", tmp_path / "s", cwd=folder)
    text = "fold-constants,eliminate-identity,fold-batchnorm,insert-qdq{profile=tensorrt}"
    done = succeed("opt", "m.onnx", "-o", tmp_path / "o.onnx", "-p", text, "--stats", tmp_path / "s", cwd=folder)
    assert "RANDOM" not in done.err and "used existing statistics" in done.out
    assert "QuantizeLinear" in ops(tmp_path / "o.onnx")


def test_quantize_and_strip_again(folder: Path, tmp_path: Path) -> None:
    succeed("quantize", "m.onnx", "--data", "d.npz", "-o", tmp_path / "q.onnx", cwd=folder)
    succeed("opt", tmp_path / "q.onnx", "-o", tmp_path / "f.onnx", "-p", "strip-qdq,eliminate-identity", cwd=folder)
    assert not {"QuantizeLinear", "DequantizeLinear"} & ops(tmp_path / "f.onnx")
    succeed("quantize", tmp_path / "f.onnx", "--data", "d.npz", "-o", tmp_path / "again.onnx", cwd=folder)


def test_save_after_one_pass(folder: Path, tmp_path: Path) -> None:
    where = f"fold-batchnorm={tmp_path / 'mid.onnx'}"
    args = ("-p", "fold-batchnorm,convert-opset{version=20}", "--save-after", where)
    succeed("opt", "m.onnx", "-o", tmp_path / "o.onnx", *args, cwd=folder)
    versions = [onnx.load(tmp_path / name).opset_import[0].version for name in ("mid.onnx", "o.onnx")]
    assert versions == [17, 20]
    assert list(listing(tmp_path)) == ["mid.onnx", "o.onnx"]


@pytest.mark.parametrize("name", ["model-local function", "initializers that are inputs"])
def test_what_loading_changed_is_said(name: str, tmp_path: Path) -> None:
    model = KINDS[name].model()
    model.ir_version = max(model.ir_version, 4) if name != "initializers that are inputs" else 4
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    said = succeed("opt", "m.onnx", "-o", "o.onnx", "-p", "fold-constants", cwd=tmp_path).err
    assert ("inlined" if "function" in name else "default value") in said
