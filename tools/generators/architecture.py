"""Write the generated parts of docs/architecture.md: the table of rooms and the picture of their imports.

    python tools/generators/architecture.py

To be run after modules were moved or added. The order is that of the import contract in pyproject.toml. The picture
leaves out arrows that follow from others.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
# Rooms whose modules are found by file name: a new one there must not make the page stale.
FOUND_BY_NAME = ("passes", "operators")


def layers() -> list[list[str]]:
    """The rooms and modules at the top of onnxq/, lowest layer first, as import-linter checks them."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in table["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [[name.strip() for name in re.split(r"[|:]", layer)] for layer in reversed(contract["layers"])]


def source(name: str) -> Path:
    """The folder or file of a top-level room or module."""
    folder = ROOT / "passes" if name == "passes" else ROOT / "onnxq" / name
    return folder if folder.is_dir() else folder.with_suffix(".py")


def files(name: str) -> list[Path]:
    """The Python files of a room or module."""
    place = source(name)
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def purpose(name: str) -> str:
    """The first line of the room's or module's docstring."""
    place = source(name)
    text = (place / "__init__.py" if place.is_dir() else place).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def modules(name: str) -> list[str]:
    """The modules of a room and, with a slash, its folders."""
    place = source(name)
    if not place.is_dir() or name in FOUND_BY_NAME:
        return []
    inside = [p for p in place.iterdir() if not p.name.startswith(("_", "."))]
    python = [p.stem for p in inside if p.suffix == ".py"]
    folders = [f"{p.name}/" for p in inside if p.is_dir() and any(p.glob("*.py"))]
    return sorted([*python, *folders])


def imported(file: Path) -> Iterator[str]:
    """Top-level rooms and modules that a file imports anywhere, for typing too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "onnxq" and rest:
                yield rest[0]


def imports() -> dict[str, set[str]]:
    """Room or module → those that it imports directly."""
    known = [name for layer in layers() for name in layer]
    return {name: {i for f in files(name) for i in imported(f)} & set(known) - {name} for name in known}


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that follow from a longer path. Raises RecursionError where there is a circle."""

    def below(name: str) -> set[str]:
        return edges[name].union(*(below(n) for n in edges[name]))

    return {
        name: {n for n in near if not any(n in below(other) for other in near - {n})} for name, near in edges.items()
    }


def table() -> str:
    """The rooms, lowest first, with their modules."""
    lines = ["| room | what it holds | modules |", "|---|---|---|"]
    for name in (name for layer in layers() for name in layer):
        place = source(name)
        path = f"{place.relative_to(ROOT)}/" if place.is_dir() else str(place.relative_to(ROOT))
        lines.append(f"| [{path}](../{path}) | {purpose(name)} | {', '.join(modules(name))} |")
    return "\n".join(lines)


def picture() -> str:
    """The rooms and their imports as a Mermaid flowchart; an arrow means "imports"."""
    edges = reduced(imports())
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"  {name} --> {other}" for name in edges for other in sorted(edges[name])]
    return "\n".join([*lines, "```"])


PARTS = {"rooms": table, "picture": picture}


def page(text: str) -> str:
    """The page with new text between `<!-- name -->` and `<!-- /name -->` for each part."""
    for name, write in PARTS.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{start}{write()}\n{end}{after}"
    return text


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
