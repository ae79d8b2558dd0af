"""The same command writes the same bytes, whatever the threads, the hash seed, the folder and the time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onnxq import demo
from onnxq.card import Card, read_card
from support.command import environment

# Runs commands one after the other in one process: importing once instead of twenty times.
RUNNER = """
import json, sys
from onnxq.cli.group import commands
for line in json.load(sys.stdin):
    try:
        commands.main(line, prog_name="onnxq")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: exit code {end.code}")
"""
DATA = ("--data", "{}/d.npz")
THREADS = ("--threads", "{threads}")
CALIBRATED = (*DATA, *THREADS, "-q")

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("calibrate", "{}/m.onnx", "-o", "{}/stats", "--profile", "tensorrt", *DATA, *THREADS),
    ("calibrate", "--merge", "{}/stats", "-o", "{}/merged"),
    ("quantize", "{}/m.onnx", "-o", "{}/q.onnx", *CALIBRATED, "--eval-data", "{}/d.npz"),
    ("quantize", "{}/m.onnx", "-o", "{}/own.onnx", *CALIBRATED, "--profile", "{}/mine.toml", "--calibration",
     "entropy"),
    ("quantize", "{}/m.onnx", "-o", "{}/stats.onnx", "--stats", "{}/stats", "--profile", "tensorrt", "-q"),
    ("quantize", "{}/m.onnx", "-o", "{}/int.onnx", *CALIBRATED, "--profile", "onnxq", "--save-after",
     "fold-constants={}/folded.onnx"),
    ("quantize", "{}/m.onnx", "-o", "{}/random.onnx", "--random-data", "4", *THREADS, "-q", "--exclude", ".*conv2"),
    ("lower", "{}/q.onnx", "-o", "{}/lowered.onnx", "-q"),
    ("opt", "{}/m.onnx", "-o", "{}/opt.onnx", "-p", "fold-constants,insert-qdq{{profile={}/mine.toml}}", *DATA,
     *THREADS),
    ("sensitivity", "{}/m.onnx", "-o", "{}/hessian.json", "--budget", "none", "--probes", "4", *CALIBRATED),
    ("sensitivity", "{}/m.onnx", "-o", "{}/one.json", "--method", "one-at-a-time", "--bits", "4", *CALIBRATED),
    ("sensitivity", "{}/m.onnx", "-o", "{}/weights.json", "--method", "weight-error", "-q"),
    ("search", "{}/m.onnx", "-o", "{}/ilp.toml", "--json", "{}/ilp.json", "--method", "ilp", "--sensitivity",
     "{}/hessian.json", "--bits", "4,8", "--max-size", "70%", "--plot", "{}/ilp.svg", "-q"),
    ("search", "{}/m.onnx", "-o", "{}/mix.toml", "--json", "{}/mix.json", "--method", "mixquant", "--max-size", "60%",
     "--plot", "{}/mix.pdf", "-q"),
    ("quantize", "{}/m.onnx", "-o", "{}/mixed.onnx", *CALIBRATED, "--config", "{}/mix.toml"),
    ("compare", "{}/m.onnx", "{}/q.onnx", "--csv", "{}/compare.csv", "--plot", "{}/compare.png", *CALIBRATED),
    ("verify", "{}/q.onnx", "{}/lowered.onnx", "--json", "{}/verify.json", "--csv", "{}/verify.csv", *CALIBRATED),
    *(("card", "{}/alone/q.onnx", "--format", form, "-o", "{}/card." + form) for form in ("md", "html", "json")),
)  # fmt: skip


def run(folder: Path, commands: Sequence[Sequence[str]], threads: int, seed: int, cwd: Path) -> None:
    """Run the commands; {} in them is the folder, relative to cwd where it is in it."""
    name = folder.relative_to(cwd) if folder.is_relative_to(cwd) else folder
    lines = [[word.format(name, threads=threads) for word in command] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(lines),
        cwd=cwd,
        env=environment(PYTHONHASHSEED=str(seed)),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def assert_equal(first: Path, second: Path) -> None:
    """The same files with the same bytes; of a card beside a model, all but what was measured."""
    names = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in (first, second)]
    assert names[0] == names[1]
    different = []
    for name in names[0]:
        one, two = (f.joinpath(name).read_bytes() for f in (first, second))
        if name.endswith(".card.json"):
            cards = [Card.from_json(text) for text in (one, two)]
            assert all(c.resources.seconds is not None for c in cards)
            one, two = (c.without_measurements().to_json().encode() for c in cards)
        if one != two:
            different.append(name)
    assert not different
    here = os.fsencode(first.parent)
    assert not [name for name in names[0] if here in first.joinpath(name).read_bytes()], "the folder's name is in it"


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same model, data and profile."""
    pytest.importorskip("matplotlib")
    digits = {k: v[:24] for k, v in demo.calibration_data().items()}
    profile = Path(sys.modules["onnxq"].__file__ or "").parent / "profiles" / "fbgemm.toml"
    for folder in (tmp_path / "first", tmp_path / "elsewhere" / "second"):
        folder.mkdir(parents=True)
        (folder / "m.onnx").write_bytes(demo.model_path().read_bytes())
        np.savez(folder / "d.npz", **digits)
        shutil.copy(profile, folder / "mine.toml")
    return tmp_path / "first", tmp_path / "elsewhere" / "second"


def test_the_same_command_writes_the_same_bytes(twins: tuple[Path, Path], tmp_path: Path) -> None:
    at = next(i for i, command in enumerate(COMMANDS) if command[0] == "card")
    for folder, threads, seed, cwd in zip(twins, (1, 2), (0, 4711), (twins[0], tmp_path), strict=True):
        run(folder, COMMANDS[:at], threads, seed, cwd)
        (folder / "alone").mkdir()
        shutil.copy(folder / "q.onnx", folder / "alone" / "q.onnx")  # without the card next to it
        run(folder, COMMANDS[at:], threads, seed, cwd)
    assert_equal(*twins)
    model = twins[0] / "q.onnx"
    assert read_card(model).resources.seconds is not None  # from the card next to it
    assert read_card(twins[0] / "alone" / "q.onnx").resources.seconds is None


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "openvino", "onnxq"])
@pytest.mark.parametrize("name", ["resnet20_cifar10", "squeezenet_imagenet", "mobilenetv2_imagenet"])
def test_real_models_too(name: str, profile: str, shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / f"{name}.onnx"
    images = ("--data", str(shared / "data" / "imagenet_calib"), "--preprocess", "imagenet", "--limit", "8")
    arrays = ("--data", str(shared / "data" / "cifar10_calib.npz"), "--preprocess", "cifar10", "--limit", "16")
    how = (*(arrays if "cifar" in name else images), *THREADS, "-q")
    commands = (
        ("quantize", str(source), "-o", "{}/q.onnx", "--profile", profile, *how),
        ("sensitivity", str(source), "-o", "{}/s.json", "--budget", "none", "--probes", "2", "--bits", "4", *how),
    )
    twins = tmp_path / "a", tmp_path / "b"
    for folder, threads, seed in zip(twins, (1, 2), (1, 2), strict=True):
        folder.mkdir()
        run(folder, commands[: 1 + (profile == "onnxruntime-cpu")], threads, seed, folder)
    assert_equal(*twins)
