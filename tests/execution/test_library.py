"""The kernel library: found, missing, broken or older, and what it says of its tiers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.parser
import pytest

import onnxq
from onnxq.errors import OnnxqError
from onnxq.execution import library, runtime

DOUBLE = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Add (x, x) }'
ONES = {"x": np.ones(3, np.float32)}


@pytest.fixture
def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(DOUBLE)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As installed where no compiler works."""
    monkeypatch.delenv("ONNXQ_LIBRARY", raising=False)
    monkeypatch.setattr(onnxq, "__path__", [str(tmp_path)])


class TestLibrary:
    def test_a_session_does_without(self, proto: onnx.ModelProto, no_library: None) -> None:
        assert not library.has_library()
        assert runtime.session(proto).run(None, ONES)[0].tolist() == [2, 2, 2]

    @pytest.mark.parametrize(
        "function",
        [library.library_path, library.cpu_features, library.kernel_tiers, library.kernel_isa, library.peak_macs],
    )
    def test_its_absence_says_what_to_do(self, function: object, no_library: None) -> None:
        assert callable(function)
        with pytest.raises(
            OnnxqError, match=r"not installed: onnxq was installed without a working C\+\+17 compiler.* reinstall onnxq"
        ):
            function()

    def test_another_build_is_named_by_a_variable(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ONNXQ_LIBRARY", str(tmp_path / "none.so"))
        for function in (library.library_path, library.has_library):
            with pytest.raises(OnnxqError, match=r"ONNXQ_LIBRARY: there is no file .*none\.so"):
                function()
        (tmp_path / "none.so").touch()
        assert library.library_path() == (tmp_path / "none.so").resolve()

    def test_a_broken_library_is_one_clear_line(
        self, proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken.so"
        broken.write_text("not a library")
        monkeypatch.setenv("ONNXQ_LIBRARY", str(broken))
        for function in (lambda: runtime.session(proto), library.cpu_features):
            with pytest.raises(
                OnnxqError, match=r"cannot .*load.* the kernel library|kernel library cannot be loaded"
            ) as refusal:
                function()
            assert "\n" not in str(refusal.value)


class TestTiers:
    """What the library says of its kernels, with a library made of Python functions."""

    @pytest.fixture
    def functions(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        made = SimpleNamespace(
            onnxq_kernel_tiers=lambda: b"avx512vnni avx2 portable",
            onnxq_kernel_isa=lambda: b"avx2",
            onnxq_peak_macs=lambda seconds: 1e12 * seconds,
        )
        monkeypatch.setattr(library, "load", lambda: made)
        return made

    def test_names_and_ceiling(self, functions: SimpleNamespace) -> None:
        assert library.kernel_tiers() == ("avx512vnni", "avx2", "portable")
        assert library.kernel_isa() == "avx2"
        assert library.peak_macs(0.5) == 5e11

    @pytest.mark.parametrize("nothing", [b"", None])
    def test_a_tier_that_is_not_there(
        self, nothing: bytes | None, functions: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ONNXQ_ISA", "avx9")
        functions.onnxq_kernel_isa = lambda: nothing
        for function in (library.kernel_isa, library.peak_macs):
            with pytest.raises(
                OnnxqError, match=r"ONNXQ_ISA=avx9: .* available in this build: avx512vnni, avx2, portable"
            ):
                function()

    def test_an_older_library(self, functions: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "library_path", lambda: Path("old.so"))
        del functions.onnxq_kernel_tiers
        with pytest.raises(OnnxqError, match=r"has no function onnxq_kernel_tiers: .* reinstall onnxq"):
            library.kernel_tiers()
