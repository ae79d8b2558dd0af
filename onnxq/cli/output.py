"""Output of results: JSON, tables, and files, where "-" stands for stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from onnxq.cli.common import output_path, table
from onnxq.cli.terminal import out_text, say

STDOUT = "-"
F = TypeVar("F", bound=Callable[..., Any])


def json_flag(command: F) -> F:
    """--json of a listing: print it as JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print as JSON.")(command)


def check_outputs(*paths: str | None) -> None:
    """Fail before any work if one of these files cannot be written. None and "-" are ignored."""
    for path in paths:
        if path not in (None, STDOUT):
            output_path(str(path))


def json_text(report: Any) -> str:
    """A value of JSON types as indented text, which is pure ASCII where a character is not printable."""
    text = json.dumps(report, indent=2, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text) + "\n"


def deliver(show: Callable[[], None], *outputs: tuple[str | None, Callable[[], str]]) -> None:
    """Print the result and write its files. outputs: (path, text) pairs; for path "-" the text is printed instead."""
    from onnxq.graph.files import write_text

    printed = next((text for path, text in outputs if path == STDOUT), None)
    if printed is None:
        show()
    else:
        out_text(printed())
    for path, text in outputs:
        if path not in (None, STDOUT):
            write_text(str(path), text())
            say(f"wrote {path}")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table on stdout. left: number of leading text columns, left-aligned; the others are numbers."""
    columns = [(head, "left" if i < left else "right") for i, head in enumerate(heads)]
    table("", columns, [list(row) for row in rows])


def first_of(names: Sequence[str], count: int = 3) -> str:
    """The first names, and the number of further ones."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")
