"""Sessions: what they accept, what they refuse and how they say it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.errors import ConfigError, MissingDependencyError, ModelError
from onnxq.execution import runtime

DOUBLE = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Add (x, x) }'
ONES = {"x": np.ones(3, np.float32)}


@pytest.fixture
def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(DOUBLE)


def external_model(folder: Path) -> tuple[Path, np.ndarray]:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    path = folder / "m.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    return path, weights


class TestModels:
    def test_takes_a_path_bytes_or_a_proto(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        for model in (path, str(path), proto, proto.SerializeToString()):
            assert onnxq.session(model).run(None, ONES)[0].tolist() == [2, 2, 2]

    def test_external_data_is_found_beside_the_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, weights = external_model(tmp_path)
        monkeypatch.chdir("/")
        x = np.eye(64, dtype=np.float32)
        np.testing.assert_allclose(runtime.session(path).run(None, {"x": x})[0], weights, rtol=1e-6)

    def test_a_proto_beyond_what_a_message_holds_goes_through_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, weights = external_model(tmp_path)
        model = onnx.load(str(path))
        before = model.SerializeToString()
        monkeypatch.setattr(runtime, "PROTO_LIMIT", 1000)
        session = runtime.session(model)
        np.testing.assert_allclose(session.run(None, {"x": np.eye(64, dtype=np.float32)})[0], weights, rtol=1e-6)
        assert model.SerializeToString() == before

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "graph"),
            (b"not a model", "rotobuf parsing failed"),
            (onnx.parser.parse_model(DOUBLE).SerializeToString()[:-9], "rotobuf parsing failed"),
            (onnx.parser.parse_model(DOUBLE.replace("Add", "Adder")).SerializeToString(), "Adder"),
            (onnx.parser.parse_model(DOUBLE.replace('"": 17', '"": 99')).SerializeToString(), "Opset 99"),
            (onnx.parser.parse_model(DOUBLE.replace("Add (", "com.onnxq.Nope (")).SerializeToString(), "Nope"),
        ],
        ids=["empty", "text", "truncated", "operator", "opset", "kernel"],
    )
    def test_a_refused_model_is_one_clear_line(
        self, content: bytes, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError) as refusal:
            runtime.session(path)
        text = str(refusal.value)
        assert text.startswith(f"{path}: onnxruntime rejects the model: ")
        assert message in text
        assert "\n" not in text
        assert "[ONNXRuntimeError]" not in text
        assert "/onnxruntime_src/" not in text
        assert capfd.readouterr().err == ""

    def test_a_path_that_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no such file"):
            runtime.session(tmp_path / "none.onnx")
        with pytest.raises(ModelError, match="this is a folder"):
            runtime.session(tmp_path)

    def test_missing_external_data(self, tmp_path: Path) -> None:
        path, _ = external_model(tmp_path)
        (tmp_path / "m.data").unlink()
        with pytest.raises(ModelError, match=r"m\.data"):
            runtime.session(path)


class TestOptions:
    def test_threads(self, proto: onnx.ModelProto) -> None:
        assert runtime.session(proto, threads=3).get_session_options().intra_op_num_threads == 3
        with pytest.raises(ConfigError, match="-1 threads"):
            runtime.session(proto, threads=-1)

    @pytest.mark.parametrize(
        ("optimize", "level"),
        [
            ("all", "ORT_ENABLE_ALL"),
            (True, "ORT_ENABLE_ALL"),
            ("basic", "ORT_ENABLE_BASIC"),
            (False, "ORT_DISABLE_ALL"),
        ],
    )
    def test_optimization_level(self, proto: onnx.ModelProto, optimize: bool | str, level: str) -> None:
        options = runtime.session(proto, optimize=optimize).get_session_options()
        assert options.graph_optimization_level.name == level

    def test_unknown_level(self, proto: onnx.ModelProto) -> None:
        with pytest.raises(ConfigError, match="'most' does not exist: choose from all, extended, basic, none"):
            runtime.session(proto, optimize="most")

    def test_provider(self, proto: onnx.ModelProto) -> None:
        assert runtime.session(proto, provider="CPUExecutionProvider").get_providers() == ["CPUExecutionProvider"]
        with pytest.raises(ConfigError, match=r"provider 'npu' is not in this onnxruntime, which has .*CPU"):
            runtime.session(proto, provider="npu")

    def test_profile(self, proto: onnx.ModelProto, tmp_path: Path) -> None:
        session = runtime.session(proto, profile=tmp_path / "trace")
        session.run(None, ONES)
        written = Path(session.end_profiling())
        assert written.parent == tmp_path
        assert '"Add"' in written.read_text()

    def test_the_graph_that_is_executed(self, tmp_path: Path) -> None:
        path, weights = external_model(tmp_path)
        runtime.session(path, optimized=tmp_path / "made.onnx")
        assert sorted(p.name for p in tmp_path.iterdir() if "made" in p.name) == ["made.onnx", "made.onnx.weights"]
        made = onnx.load(str(tmp_path / "made.onnx"))
        np.testing.assert_array_equal(numpy_helper.to_array(made.graph.initializer[0]), weights)


def test_missing_onnxruntime_names_the_extra(proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'onnxq\[cpu\]'"):
        runtime.session(proto)


def test_importing_does_not_load_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys, onnxq, onnxq.execution.runtime\n"
        "print([m for m in ('onnxruntime', 'PIL', 'matplotlib', 'openvino', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
