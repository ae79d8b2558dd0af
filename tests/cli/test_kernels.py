"""`onnxq kernels`: what it says of libraries, of CPUs, and of ONNXQ_ISA."""

from pathlib import Path

import pytest

import onnxq
from onnxq.errors import OnnxqError
from onnxq.execution import library
from support import command

NEEDS = {
    "amx": ("amx_int8", "avx512vnni"),
    "avx512vnni": ("avx512vnni",),
    "avxvnni": ("avxvnni",),
    "avx2": ("avx2",),
    "portable": (),
}
TIERS = tuple(library.Tier(name, needs, "a loop") for name, needs in NEEDS.items())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A library with three tiers on a CPU that has everything but tiles."""
    monkeypatch.delenv("ONNXQ_ISA", raising=False)
    monkeypatch.setattr(library, "has_library", lambda: True)
    monkeypatch.setattr(library, "library_path", lambda: Path("lib.so"))
    monkeypatch.setattr(library, "cpu_features", lambda: ("avx2", "avxvnni", "avx512vnni"))
    monkeypatch.setattr(library, "kernel_tiers", lambda: ("amx", "avx512vnni", "portable"))
    monkeypatch.setattr(library, "tier_table", lambda: TIERS)
    monkeypatch.setattr(library, "kernel_isa", lambda: "avx512vnni")
    monkeypatch.setattr(library, "peak_macs", lambda seconds: 1e12)
    return monkeypatch


def rows(out: str) -> dict[str, list[str]]:
    """The table's cells by tier."""
    lines = [line.split() for line in out.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] in NEEDS}


def test_built_available_and_chosen(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = command.inside("kernels", cwd=tmp_path)
    assert done.code == 0, done.err
    table = rows(done.out)
    assert list(table) == ["amx", "avx512vnni", "portable", "avxvnni", "avx2"]
    assert {tier: cells[:2] for tier, cells in table.items()} == {
        "amx": ["yes", "no"],
        "avx512vnni": ["yes", "yes"],
        "portable": ["yes", "yes"],
        "avxvnni": ["no", "yes"],
        "avx2": ["no", "yes"],
    }
    assert [tier for tier, cells in table.items() if "chosen" in cells] == ["avx512vnni"]
    assert "has      avx2, avxvnni, avx512vnni" in done.out
    assert "the best available tier is selected; ONNXQ_ISA=TIER selects another, such as portable" in done.out
    assert "GOP/s" not in done.out


def test_the_ceiling_when_asked(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (
        "inner loop of avx512vnni, one thread: 2000 GOP/s" in command.inside("kernels", "--ceiling", cwd=tmp_path).out
    )


def test_the_variable_is_told(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.setenv("ONNXQ_ISA", "portable")
    server.setattr(library, "kernel_isa", lambda: "portable")
    done = command.inside("kernels", cwd=tmp_path)
    assert "ONNXQ_ISA=portable selects portable" in done.out
    assert [tier for tier, cells in rows(done.out).items() if "chosen" in cells] == ["portable"]


def test_a_variable_that_asks_for_what_is_not_there_is_one_line(server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> str:
        raise OnnxqError("ONNXQ_ISA=avx9: there is no such tier")

    server.setattr(library, "kernel_isa", refuse)
    done = command.inside("kernels", cwd=tmp_path)
    assert command.error_of(done) == "ONNXQ_ISA=avx9: there is no such tier"
    assert done.out == ""


def test_without_a_library_models_run_on_their_bodies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONNXQ_LIBRARY", raising=False)
    monkeypatch.setattr(onnxq, "__path__", [str(tmp_path)])
    done = command.inside("kernels", cwd=tmp_path)
    assert done.code == 0
    assert "library  none" in done.out
    assert "run on their function bodies, with the same results but slower" in done.out
    assert "install g++ 11" in done.out


@pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
def test_the_installed_library() -> None:
    """The portable tier is always built and always runs; a tier that no library has is refused."""
    table = rows(command.succeed("kernels", env={"ONNXQ_ISA": "portable"}).out)
    assert table["portable"][:3] == ["yes", "yes", "chosen"]
    refused = command.onnxq("kernels", env={"ONNXQ_ISA": "avx9"})
    assert "ONNXQ_ISA=avx9: there is no such kernel tier" in command.error_of(refused)
