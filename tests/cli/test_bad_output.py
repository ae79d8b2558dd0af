"""Output that cannot be written, through the real command line: one clear line, and no file is left or lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from support.cases.bad_files import GOOD, small
from support.command import error_of, listing, onnxq


def test_the_output_folder_must_exist(kit: Path, out: Path) -> None:
    for command, *args in _writers("absent"):
        assert "does not exist" in error_of(onnxq(command, *args, out / "absent" / "m.onnx", cwd=kit))


def test_a_folder_is_no_output(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    for command, *args in _writers("folder"):
        assert "folder" in error_of(onnxq(command, *args, tmp_path / "m.onnx", cwd=kit))
    assert list((tmp_path / "m.onnx").iterdir()) == []


def test_a_file_is_no_output_folder(kit: Path, out: Path) -> None:
    for command, *args in _writers("file"):
        assert "m.onnx" in error_of(onnxq(command, *args, out / "m.onnx" / "m.onnx", cwd=kit))


def test_without_its_card_the_model_is_not_written_either(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "m.card.json").mkdir()
    said = error_of(onnxq("quantize", *GOOD, "-o", tmp_path / "m.onnx", cwd=kit))
    assert "m.card.json" in said
    assert list(listing(tmp_path)) == ["m.card.json"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, where nobody can make files")
def test_a_folder_that_takes_no_files(kit: Path) -> None:
    for command, *args in _writers("proc"):
        assert "cannot be written" in error_of(onnxq(command, *args, "/proc/m.onnx", cwd=kit))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(kit: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        for command, *args in _writers("read-only"):
            assert "cannot be written" in error_of(onnxq(command, *args, tmp_path / "m.onnx", cwd=kit))
        assert listing(tmp_path) == {}
    finally:
        tmp_path.chmod(0o755)


def test_a_device_is_no_output(kit: Path, tmp_path: Path) -> None:
    """/dev/null must survive root quantizing a model into it."""
    device = tmp_path / "m.onnx"
    os.mkfifo(device)
    for command, *args in _writers("device"):
        assert "m.onnx" in error_of(onnxq(command, *args, device, cwd=kit))
    assert device.is_fifo()


def _writers(_why: str) -> tuple[tuple[str, ...], ...]:
    """Commands that write a file, which follows their last argument."""
    return (
        ("quantize", *GOOD, "-o"),
        ("opt", "good.onnx", "-p", "fold-constants", "-o"),
        ("calibrate", *GOOD, "-o"),
    )


# A full disk: no file may grow beyond a limit, which fails in the same calls as a full disk does (EFBIG, not ENOSPC)


def _files_up_to(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("command", ["quantize", "opt", "calibrate"])
def test_a_full_disk(command: str, size: int, kit: Path, out: Path) -> None:
    args = next(a for c, *a in _writers("full") if c == command)
    said = error_of(onnxq(command, *args, out / "n.onnx", cwd=kit, preexec=_files_up_to(size)))
    assert str(out) in said and "File too large" in said


def test_a_full_disk_during_the_weights(kit: Path, tmp_path: Path) -> None:
    """External data: the weights do not fit, and neither file may remain."""
    model = small(
        w1=np.ones((512, 3, 3, 3), np.float32), b1=np.ones(512, np.float32), w2=np.ones((4, 512, 1, 1), np.float32)
    )
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    onnx.save_model(model, str(source / "m.onnx"), save_as_external_data=True, location="m.data")
    said = error_of(
        onnxq("opt", source / "m.onnx", "-p", "fold-constants", "-o", target / "m.onnx", preexec=_files_up_to(20000))
    )
    assert "m.onnx" in said
    assert listing(target) == {}
