"""tools/fuzz_models.py: seeds are cases, faults are found once a kind, workers die alone, and onnxq has none."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fuzzing import cases, corpus, stages
from fuzzing.cases import Case
from fuzzing.findings import Findings, kept
from fuzzing.pool import Death, Limits, results
from onnxq.errors import ModelError, PassError

At = Callable[[str], None]
QUICK = Limits(memory=1 << 30, cpu=2, wall=20.0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="workers with limits")


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without those that are quantized first."""
    few = tuple(b for b in corpus.bases() if b.name in ("demo", "residual", "condition", "network 1", "every operator"))
    monkeypatch.setattr(corpus, "bases", lambda: few)


@pytest.fixture(scope="module")
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_models", root / "tools" / "fuzz_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_seed_is_a_case() -> None:
    made = [cases.drawn(seed) for seed in range(60)]
    assert made == [cases.drawn(seed) for seed in range(60)]
    assert len({case.content for case in made}) > 50


def test_a_case_leaves_the_model_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [base.proto().SerializeToString() for base in corpus.bases()]
    for seed in range(100, 130):
        cases.drawn(seed)
    assert [base.proto().SerializeToString() for base in corpus.bases()] == before


def planted(seed: int, folder: Path, at: At) -> stages.Outcome:
    """Faults by seed: two internal errors of one kind, a crash, endless work, memory, and nothing."""
    at("planted")
    found = None
    if seed in (1, 2):
        try:
            [][seed]
        except IndexError as err:
            found = stages.judged("planted", err)
    elif seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif seed == 4:
        while True:
            pass
    elif seed == 5:
        try:
            bytearray(4 << 30)
        except MemoryError as err:
            found = stages.judged("planted", err)
    return stages.Outcome([("planted", "done")], found)


@linux
def test_faults_are_found_once_a_kind_and_kept(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    told = []
    for seed, result in results(planted, range(8), 1, QUICK):
        told.append(findings.add(cases.drawn(seed), result))
    assert findings.counts == {"IndexError, planted": 2, "SIGSEGV, planted": 1, "too much CPU time, planted": 1,
                               "MemoryError, planted": 1}  # fmt: skip
    assert [bool(line) for line in told] == [False, True, False, True, True, True, False, False]
    for file in tmp_path.glob("*.json"):
        case = kept(file)
        assert case == cases.drawn(case.seed) and json.loads(file.read_text())["reproduce"].endswith(str(case.seed))


@linux
def test_a_worker_that_hangs_is_killed_and_its_stack_kept() -> None:
    def asleep(seed: int, folder: Path, at: At) -> str:
        at("asleep")
        if not seed:
            time.sleep(60)
        return "awake"

    (first, death), (second, answer) = results(asleep, range(2), 1, Limits(memory=0, cpu=5, wall=1.0))
    assert (first, second, answer) == (0, 1, "awake")
    assert isinstance(death, Death) and (death.how, death.stage) == ("hangs", "asleep") and "in asleep" in death.stack


@pytest.mark.parametrize(
    ("message", "cause", "kind"),
    [
        ("m.onnx: input x has no shape", None, None),
        ("pass p failed: IndexError: list index out of range", None, "the text of an internal error"),
        ("m.onnx: cannot be read", KeyError("x"), "wrapped KeyError"),
        ("m.onnx: node a\nb", None, "a message with control characters"),
        ("m.onnx: node \x1b[31m", None, None),  # the error has made it printable
    ],
)
def test_only_a_plain_line_is_right(message: str, cause: Exception | None, kind: str | None) -> None:
    try:
        try:
            if cause is not None:
                raise cause
        except Exception as err:
            raise ModelError(message) from err
        raise PassError(message)
    except (ModelError, PassError) as err:
        found = stages.judged("load", err)
    assert (found.kind if found else None) == kind


def test_what_a_command_prints_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxq.cli import terminal

    case = Case(0, "demo", corpus.bases()[0].proto().SerializeToString(), (("inspect", "{model}"),))
    assert stages.run(case, tmp_path).found is None
    monkeypatch.setattr(terminal, "printable", lambda text: f"{text}\x1b[1m")
    found = stages.run(case, tmp_path).found
    assert found is not None and found.kind == "control characters in the output"


@linux
def test_figures_and_exit_code(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "run", planted)
    findings = tool.fuzz(0.5, 1, 1, None, QUICK)
    out = capsys.readouterr().out
    assert "IndexError, planted (planted)" in out and f"{len(findings.counts)} findings" in out


@linux
@pytest.mark.slow
def test_a_minute_finds_nothing(root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "fuzz_models.py"), "--seconds", "60", "--seed", "5000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " 0 findings" in done.stdout, done.stdout + done.stderr
