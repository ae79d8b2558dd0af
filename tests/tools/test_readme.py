"""tools/README.md lists every tool, and every tool shows how to run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def tools(root: Path) -> dict[str, Path]:
    """Every program of tools/ by its path from there; packages that programs share are none."""
    folder = root / "tools"
    found = sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])
    return {str(path.relative_to(folder)): path for path in found if not (path.parent / "__init__.py").exists()}


def test_every_tool_is_listed_once(root: Path) -> None:
    rows = re.findall(r"^\| \[(.*?)\]\((.*?)\) \|", (root / "tools" / "README.md").read_text(), re.MULTILINE)
    assert rows == [(name, name) for name in tools(root)]


def test_every_tool_shows_how_to_run_it(root: Path) -> None:
    for name, path in tools(root).items():
        assert f"python tools/{name}" in (ast.get_docstring(ast.parse(path.read_text())) or ""), name
