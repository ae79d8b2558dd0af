"""Code in the sentences of README.md and docs/: commands and options exist, Python runs. (.ci/run runs the blocks.)"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from pathlib import Path

import click
import onnxruntime as ort
import pytest

import onnxq
from onnxq.cli.group import COMMANDS
from support.command import inside


def prose(page: Path) -> list[str]:
    """Inline code outside fenced blocks, in order."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)))


def pages(root: Path) -> list[Path]:
    """README.md and the pages of docs/ that people write."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def command(name: str) -> click.Command:
    found: click.Command = importlib.import_module(f"onnxq.cli.{name}").command
    return found


def options(of: click.Command) -> dict[str, click.Parameter]:
    return {o: p for p in of.params for o in (*p.opts, *p.secondary_opts)} | {"--help": click.Option(["--help"])}


def wrong(code: str) -> str:
    """What the command line does not have of this piece of code; "" if nothing."""
    words = shlex.split(code)
    if words[0] == "onnxq":
        if len(words) == 1 or words[1] == "COMMAND":
            return ""
        if words[1] not in COMMANDS:
            return f"there is no command {words[1]}"
        known, words = [options(command(words[1]))], words[2:]
    else:
        known = [options(command(name)) for name in COMMANDS]
    for word, value in itertools.zip_longest(words, words[1:], fillvalue=""):
        if not word.startswith("-"):
            continue
        name = word.partition("=")[0]
        takers = [table[name] for table in known if name in table]
        if not takers:
            return f"there is no option {name}"
        choices = [p.type.choices for p in takers if isinstance(p.type, click.Choice)]
        limited = value and not value.startswith("-") and len(choices) == len(takers)
        if limited and not any(value in c for c in choices):
            return f"{name} does not take {value}"
    return ""


def is_python(code: str) -> bool:
    """Whether it is an expression of onnxq's Python interface."""
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return "onnxq" in names and isinstance(tree.body, (ast.Call, ast.Attribute))


def test_commands_and_options_exist(root: Path) -> None:
    """Also those named alone: `onnxq lower`, `--max-size 60%`."""
    found = [(p.name, code) for p in pages(root) for code in prose(p) if re.match(r"onnxq( [a-z]|$)|--[a-z]", code)]
    assert len(found) > 60
    assert [(page, code, wrong(code)) for page, code in found if wrong(code)] == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("onnxq lower m.onnx -o i.onnx", ""),
        ("onnxq lowr m.onnx", "there is no command lowr"),
        ("onnxq lower --data x", "there is no option --data"),
        ("--max-sise 60%", "there is no option --max-sise"),
        ("onnxq lower --rescale loose", "--rescale does not take loose"),
    ],
)
def test_a_mistake_would_be_found(code: str, said: str) -> None:
    assert wrong(code) == said


def test_the_tools_and_files_of_readme_exist(root: Path) -> None:
    codes = prose(root / "README.md")
    tools = [c.split()[1] for c in codes if c.startswith("python ")]
    paths = [c for c in codes if re.fullmatch(r"[\w./]+/[\w.]*", c) and not c.startswith("..")]
    assert tools and paths
    assert [t for t in (*tools, *paths) if not (root / t).exists()] == []


def test_readme_python_in_sentences_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names resolve, calls run: in the folder that the tour's commands leave."""
    codes = [c for c in prose(root / "README.md") if is_python(c)]
    assert "options.register_custom_ops_library(onnxq.library_path())" in codes
    monkeypatch.chdir(tmp_path)
    assert inside("demo", "-o", "demo", cwd=tmp_path).code == 0
    onnxq.quantize("demo/digits.onnx", "demo/calibration.npz", limit=8, profile="onnxq").save("demo/digits.int.onnx")
    importlib.import_module("onnxq.pipeline")  # a sentence names a class in it
    for code in codes:
        eval(code, {"onnxq": onnxq, "options": ort.SessionOptions()})


def test_the_library_path_serves_onnxruntime_and_paths() -> None:
    path = onnxq.library_path()
    assert isinstance(path, str) and Path(path).is_file()
    ort.SessionOptions().register_custom_ops_library(path)
