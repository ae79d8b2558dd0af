"""tools/fuzz_kernels.py: finds what is wrong, and finds nothing in our kernels."""

from __future__ import annotations

import importlib.util
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support.kernel_runs import needs_library


@pytest.fixture(scope="module")
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_kernels", root / "tools" / "fuzz_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_deaths_and_delays_are_told(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "SECONDS", 1)
    assert tool.isolated(lambda: os.kill(os.getpid(), 11)) == ("died", "SIGSEGV")
    assert tool.isolated(lambda: all(True for _ in iter(int, 1))) == ("died", "too slow")
    assert tool.isolated(lambda: ("ran", 3)) == ("ran", 3)


def test_the_limit_of_memory_is_for_what_the_child_adds(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "BYTES", 1 << 28)
    with mmap.mmap(-1, 1 << 29, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        assert tool.isolated(lambda: ("ran", len(bytes(1 << 26)))) == ("ran", 1 << 26)
        assert tool.isolated(lambda: ("ran", len(bytes(1 << 29)))) == ("died", "exit 0")


def test_a_seed_is_a_case(tool: ModuleType) -> None:
    for seed in range(30):
        (first, tier), (second, other) = (tool.drawn(seed, ["a", "b"]) for _ in range(2))
        assert tier == other and str(first) == str(second)
        assert all(np.array_equal(first.arrays[n], second.arrays[n]) for n in first.arrays)


@needs_library
@pytest.mark.parametrize(("kind", "other"), [("values", 1), ("shape", None)])
def test_a_wrong_kernel_is_found(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str, other: int | None
) -> None:
    case, real = tool.nodes()[0], tool.outcome
    assert tool.judged(case) == ""

    def planted(case: object, bodies: bool) -> tuple[str, np.ndarray]:
        done, y = real(case, bodies)
        return done, y if bodies else y[..., :-1] if other is None else y ^ other

    monkeypatch.setattr(tool, "outcome", planted)
    assert tool.judged(case).startswith(kind)


@needs_library
def test_a_few_hostile_cases(tool: ModuleType) -> None:
    names = tool.tiers()
    assert {tool.judged(tool.drawn(seed, names)[0]) for seed in range(1_000_000, 1_000_060)} == {""}


@needs_library
@pytest.mark.slow
def test_a_minute_finds_nothing(root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "fuzz_kernels.py"), "--minutes", "1", "--seed", "5000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "0 findings" in done.stdout, done.stdout
