"""docs/architecture.md: what is generated is current, and what it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import architecture
import pytest

LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)\)")
PAGE = architecture.PAGE.read_text(encoding="utf-8")
FUNCTIONS = [(text, target) for text, target in LINK.findall(PAGE) if target.endswith(".py") and "/" not in text]


def test_the_generated_parts_are_current() -> None:
    assert architecture.page(PAGE) == PAGE, "run tools/generators/architecture.py"


@pytest.mark.parametrize("target", sorted({target for _, target in LINK.findall(PAGE)}))
def test_links_lead_somewhere(target: str) -> None:
    assert (architecture.PAGE.parent / target).exists()


@pytest.mark.parametrize(("text", "target"), FUNCTIONS)
def test_functions_are_where_the_page_says(text: str, target: str) -> None:
    """A link [module.name](path) names a function or class that the file defines."""
    module, _, name = text.partition(".")
    tree = ast.parse((architecture.PAGE.parent / target).read_text(encoding="utf-8"))
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    assert Path(target).stem == module
    assert name in defined


def test_the_contract_lists_every_room() -> None:
    rooms = {name for layer in architecture.layers() for name in layer}
    top = {p.stem for p in (architecture.ROOT / "onnxq").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms == (top | {"passes"}) - {"__init__"}
