"""`onnxq check` as users run it: what it prints and its exit code."""

import json
from pathlib import Path

import onnx
import pytest

from onnxq.graph.model import to_proto
from support import command
from support.build import qdq
from support.insertion import context, insert

TEXT = """g (float[1,4,6,6] x) => (float[1,8] y) <float[8,4,1,1] w, float[8] b>
    { [c] a = Conv(x, w, b) [r] r = Relu(a) [gap] p = GlobalAveragePool(r)
      [flat] f = Flatten(p) [soft] y = Softmax(f) }"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(qdq.proto(TEXT), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    made = qdq.model(TEXT)
    insert(made, context(made, "onnxruntime-cpu"), fuse=True)
    onnx.save(to_proto(made), tmp_path / "q.onnx")
    return tmp_path / "q.onnx"


def test_remarks_alone_pass_unless_strict(model):
    done = command.succeed("check", "--profile", "tensorrt", model)
    assert "Softmax runs in float" in done.out
    assert done.out.splitlines()[-1] == "m.onnx: tensorrt accepts it; 0 rejected, 1 remark(s)"
    assert command.onnxq("check", "--profile", "tensorrt", "--strict", model).code == 1


def test_rejections_fail_with_a_fix_on_every_row(quantized):
    done = command.onnxq("check", "--profile", "tensorrt", quantized)
    assert done.code == 1
    assert done.err == ""
    rejected = [line for line in done.out.splitlines() if line.startswith("reject")]
    assert any("DequantizeLinear on its bias" in line for line in rejected)
    assert all("onnxq quantize --requantize --profile tensorrt" in line for line in rejected)
    assert "tensorrt would reject it" in done.out


def test_json_has_one_entry_a_node(quantized):
    done = command.onnxq("check", "--profile", "tensorrt", "--json", quantized)
    assert done.code == 1
    report = json.loads(done.out)
    assert (report["model"], report["profile"]) == ("q.onnx", "tensorrt")
    assert report["rejected"] == sum(f["severity"] == "reject" for f in report["findings"]) > 2
    assert report["remarks"] == sum(f["severity"] == "remark" for f in report["findings"])


def test_bad_input(tmp_path, model):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    assert "not an ONNX model" in command.error_of(
        command.onnxq("check", "--profile", "tensorrt", tmp_path / "bad.onnx")
    )
    assert "no profile is called" in command.error_of(command.onnxq("check", "--profile", "tensort", model))
    assert command.onnxq("check", model).code == 2  # which profile?
