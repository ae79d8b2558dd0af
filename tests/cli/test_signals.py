"""Ctrl-C, kill, a closed pipe and a full disk end a command with at most one line, whenever they come."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cases.bad_files import GOOD
from support.command import COMMAND, environment, listing

PACKAGE = f"{os.sep}onnxq{os.sep}"  # in the path of every file of ours in a traceback
FIRST = [f"onnxq{os.sep}__init__.py", f"cli{os.sep}__init__.py", f"cli{os.sep}main.py", f"cli{os.sep}signals.py"]
LINES = {signal.SIGINT: ("error: interrupted", 130), signal.SIGTERM: ("error: terminated", 143)}


@functools.cache
def startup() -> float:
    """Seconds in which Python may still be starting, with its own reaction to Ctrl-C: more on a busy machine."""
    started = time.perf_counter()
    for _ in range(3):
        subprocess.run([sys.executable, "-c", "import onnxq.cli.main"], env=environment(), check=True)
    return max(0.06, (time.perf_counter() - started) / 2)


def stopped(number: signal.Signals, delay: float, kit: Path, out: Path) -> tuple[int, list[str]]:
    """The exit code and the lines on stderr, but for those of progress, of a quantize stopped after a delay."""
    words = [COMMAND, "quantize", *GOOD, "-q", "-o", out / "n.onnx"]
    process = subprocess.Popen(words, cwd=kit, env=environment(), stdout=-1, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(number)
    lines = process.communicate(timeout=60)[1].splitlines()
    ours = [line for line in lines if PACKAGE in line]
    was_python = any(line.startswith(("Traceback", "Fatal Python error")) for line in lines)
    if was_python and all(any(file in line for file in FIRST) for line in ours):
        return -number, []  # a busy machine: Python, or the import of signals.py, was not done yet
    return process.returncode, lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_time_is_one_line(number: signal.Signals, kit: Path, tmp_path: Path) -> None:
    line, code = LINES[number]
    rng = random.Random(0)
    found = []
    for i in range(12):
        delay = startup() + rng.random() * 0.8
        ended, lines = stopped(number, delay, kit, tmp_path)
        if ended in (0, -number):  # it was done, or at its very end, where nothing is left to report
            assert lines == []
            continue
        assert ended == code, (delay, lines)
        assert len(lines) == 1 and lines[0].startswith(line), (delay, lines)
        assert not [name for name in listing(tmp_path) if name.startswith(".")], delay
        found.append(i)
    assert found, "none of them was stopped"


@pytest.mark.slow
def test_ctrl_c_at_a_hundred_times(kit: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(100):
        ended, lines = stopped(signal.SIGINT, startup() + rng.random() * 1.9, kit, tmp_path)
        assert ended in (0, 130, -signal.SIGINT), lines
        assert len(lines) == (ended == 130), lines
        assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("words", [("profiles",), ("passes",), ("--help",), ("inspect", "good.onnx", "--json")])
def test_a_pipe_that_nobody_reads(words: tuple[str, ...], kit: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, *words], cwd=kit, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (1, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_output_that_does_not_fit(kit: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COMMAND, "inspect", "good.onnx"],
            cwd=kit,
            env=environment(),
            stdout=full,
            stderr=-1,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"


def test_no_output_at_all(kit: Path) -> None:
    line = f"'{COMMAND}' inspect good.onnx >&- 2>&-"
    assert subprocess.run(line, shell=True, cwd=kit, env=environment(), check=False).returncode == 0
