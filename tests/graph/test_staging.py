"""What a killed process left is removed by the next one with that output, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onnxq.errors import OutputError
from onnxq.graph.files import check_writable, write_bytes, write_text
from onnxq.graph.staging import remove_leftovers, staging_file, staging_folder

HOLD = """
import sys, time
from pathlib import Path
from onnxq.graph.staging import staging_file, staging_folder
with staging_folder(Path(sys.argv[1])) as folder, staging_file(Path(sys.argv[1])):
    (folder / "weights").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""


def holder(target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_only_what_the_dead_left_for_this_output_goes(tmp_path: Path) -> None:
    target, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    target.write_bytes(b"old")
    kept = [tmp_path / ".m.onnx.abc", tmp_path / ".onnxq-notes", tmp_path / "m.onnx.data"]
    for file in kept:
        file.write_text("mine")
    dead, alive, elsewhere = holder(target), holder(target), holder(other)
    try:
        dead.kill()
        dead.wait()
        elsewhere.kill()
        elsewhere.wait()
        assert len(staged(tmp_path)) == 6
        remove_leftovers(target)
        assert len(staged(tmp_path)) == 4
        write_bytes(target, b"new")
        assert len(staged(tmp_path)) == 4
        assert check_writable(other) == other
        assert len(staged(tmp_path)) == 2
    finally:
        alive.send_signal(signal.SIGKILL)
        alive.wait()
    write_bytes(target, b"newer")
    assert staged(tmp_path) == []
    assert target.read_bytes() == b"newer"
    assert all(file.read_text() == "mine" for file in kept)


def staged(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name.startswith(".onnxq-") and p.name != ".onnxq-notes"]


def test_another_machine_s_are_left_alone(tmp_path: Path) -> None:
    with staging_file(tmp_path / "m") as file:
        machine = file.name.split("-")[2]
    foreign = tmp_path / file.name.replace(f"-{machine}-", "-00000000-")
    reused = tmp_path / file.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-9")  # a later process, the same number
    foreign.touch()
    reused.touch()
    remove_leftovers(tmp_path / "m")
    assert foreign.exists()
    assert not reused.exists()


def test_nothing_stays_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path / "m") as folder:
        (folder / "a").write_text("b")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".json")
    write_text(target, "text")
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link, second = tmp_path / "real" / "m.onnx", tmp_path / "m.onnx", tmp_path / "again.onnx"
    link.symlink_to(Path("real") / "m.onnx")
    second.symlink_to(link)
    for content in (b"new", b"newer"):  # first, the link leads to a file that does not exist yet
        write_bytes(second, content)
        assert real.read_bytes() == content
        assert link.is_symlink() and second.is_symlink()
        assert not real.is_symlink()
    assert check_writable(link) == real
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="leads nowhere"):
        write_bytes(loop, b"")
    (tmp_path / "gone").symlink_to(tmp_path / "absent" / "m.onnx")
    with pytest.raises(OutputError, match="does not exist"):
        write_bytes(tmp_path / "gone", b"")
