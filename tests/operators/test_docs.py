"""The pages in docs/operators are those that the schemas make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("operator_docs", root / "tools" / "generators" / "operator_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_current(tool: ModuleType) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in tool.FOLDER.glob("*.md")}
    assert written == tool.pages(), "run tools/generators/operator_docs.py and read the difference"


def test_pages_hold_what_a_reader_needs(tool: ModuleType) -> None:
    pages = tool.pages()
    for line in ("`w_zero_point` | int8 | [1] or [M]", "`qmin` | int | required", "`strides` | ints, 2 | [1, 1]"):
        assert line in pages["Conv.md"]
    assert "ConvInteger <strides: ints = @strides" in pages["Conv.md"]
    assert "[Max pooling, channels-last.](MaxPool.md)" in pages["README.md"]
    assert "Concat2 … Concat8" in pages["README.md"] and "Concat2.md" not in pages
