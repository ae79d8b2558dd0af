"""No command replaces what it reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
import onnx
import pytest

from onnxq.cli.group import COMMANDS, commands
from onnxq.cli.guard import DATA_SUFFIXES, LABELS_FILE, Command, OutputFile
from onnxq.data import images
from support.cases.bad_files import small
from support.command import error_of, inside, listing


@pytest.fixture
def folder(kit: Path, tmp_path: Path) -> Path:
    """A model, an external one, data, and two links to them."""
    for name in ("good.onnx", "good.npz"):
        shutil.copy(kit / name, tmp_path / name)
    shutil.copytree(kit / "images", tmp_path / "images")
    shutil.copy(kit / "images.toml", tmp_path / "images.toml")
    onnx.save_model(small(), str(tmp_path / "e.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "link.onnx").symlink_to("good.onnx")
    os.link(tmp_path / "good.onnx", tmp_path / "hard.onnx")
    assert inside("calibrate", "good.onnx", "--data", "good.npz", "-o", "stats", cwd=tmp_path).code == 0
    (tmp_path / "b.card.json").write_text("{}")
    (tmp_path / "b.onnx.data").write_text("{}")
    return tmp_path


DATA = ("--data", "good.npz")
REPLACES = {
    "model": ("quantize", "good.onnx", *DATA, "-o", "good.onnx"),
    "model, other spelling": ("quantize", "good.onnx", *DATA, "-o", "images/../good.onnx"),
    "link": ("quantize", "link.onnx", *DATA, "-o", "good.onnx"),
    "to the link": ("quantize", "good.onnx", *DATA, "-o", "link.onnx"),
    "hard link": ("quantize", "good.onnx", *DATA, "-o", "hard.onnx"),
    "data": ("quantize", "good.onnx", *DATA, "-o", "good.npz"),
    "weights": ("quantize", "e.onnx", *DATA, "-o", "w.bin"),
    "evaluation data": ("quantize", "good.onnx", "--random-data", "1", "--eval-data", "good.npz", "-o", "good.npz"),
    "statistics": ("quantize", "good.onnx", "--stats", "stats", "-o", "stats"),
    "config": ("quantize", "good.onnx", *DATA, "--config", "b.card.json", "-o", "b.onnx"),
    "config as weights": ("quantize", "good.onnx", *DATA, "--config", "b.onnx.data", "-o", "b.onnx"),
    "saved on the way": ("quantize", "good.onnx", *DATA, "-o", "q.onnx", "--save-after", "fold-constants=good.onnx"),
    "both outputs": ("quantize", "good.onnx", *DATA, "-o", "q.onnx", "--save-after", "fold-constants=q.onnx"),
    "opt": ("opt", "good.onnx", "-p", "fold-constants", "-o", "good.onnx"),
    "lower": ("lower", "good.onnx", "-o", "good.onnx"),
    "calibrate": ("calibrate", "good.onnx", *DATA, "-o", "good.npz"),
    "merged": ("calibrate", "--merge", "stats", "-o", "stats"),
    "eval": ("eval", "good.onnx", *DATA, "--json", "good.npz"),
    "against": ("eval", "good.onnx", *DATA, "--against", "e.onnx", "--json", "e.onnx"),
    "its weights": ("eval", "good.onnx", *DATA, "--against", "e.onnx", "--json", "w.bin"),
    "compare": ("compare", "good.onnx", "e.onnx", *DATA, "--csv", "e.onnx"),
    "two outputs": ("compare", "good.onnx", "e.onnx", *DATA, "--csv", "x", "--json", "./x"),
    "bench": ("bench", "good.onnx", "--against", "openvino:e.onnx", "--json", "e.onnx"),
    "sensitivity": ("sensitivity", "good.onnx", *DATA, "-o", "good.onnx"),
    "an image": ("quantize", "good.onnx", "--data", "images", "--preprocess", "images.toml", "-o", "images/0.png"),
    "preprocessing": ("quantize", "good.onnx", "--data", "images", "--preprocess", "images.toml", "-o", "images.toml"),
    "card": ("card", "good.onnx", "-o", "good.onnx"),
}


@pytest.mark.parametrize("case", REPLACES)
def test_an_input_is_not_replaced(case: str, folder: Path) -> None:
    before = listing(folder)
    said = error_of(inside(*REPLACES[case], cwd=folder))
    assert "would replace an input" in said or "would write the same file" in said, said
    assert listing(folder) == before


def test_an_older_output_is_replaced(folder: Path) -> None:
    for _ in range(2):
        assert inside("quantize", "good.onnx", *DATA, "-o", "q.onnx", "-q", cwd=folder).code == 0
        done = inside("eval", "q.onnx", *DATA, "--against", "good.onnx", "--json", "images/found.json", cwd=folder)
        assert done.code == 0, done.err
    (folder / "to.onnx").symlink_to("q.onnx")
    assert inside("quantize", "good.onnx", *DATA, "-o", "to.onnx", "--profile", "tensorrt", cwd=folder).code == 0
    assert (folder / "to.onnx").is_symlink()
    assert "tensorrt" in inside("card", "q.onnx", cwd=folder).out


def test_every_output_of_every_command_is_guarded() -> None:
    """An option whose help says that it writes is of the type that the guard looks for."""
    context = click.Context(commands)
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert isinstance(command, Command), name
        for param in command.params:
            text = (getattr(param, "help", "") or "").lower()
            writes = "-o" in param.opts or text.startswith(("write", "plot")) or " plot " in text or "save the" in text
            if writes and param.name != "folder":
                assert isinstance(param.type, OutputFile), (name, param.opts)


def test_the_suffixes_of_data_are_those_of_the_readers() -> None:
    assert images.SUFFIXES | {".npz", ".pb"} == DATA_SUFFIXES
    assert LABELS_FILE == images.LABELS_FILE


def test_data_that_is_code_is_said_to_be_run() -> None:
    every = [commands.get_command(click.Context(commands), name) for name in COMMANDS]
    found = [o for command in every if command for o in command.params if "--data" in o.opts]
    assert len(found) >= 6
    for option in found:
        assert isinstance(option, click.Option) and "module:callable, whose code is run" in (option.help or "")
