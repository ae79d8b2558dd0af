"""docs/profiles.md explains every key of a profile."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from onnxq.profiles.schema import load_profile


def keys() -> set[str]:
    """Every key, by its table: `graph.scheme`; those of operators as `ops.NAME.action`."""
    profile = load_profile("tensorrt")
    tables = {"graph", "weights", "activations", "limits"}
    parts = {f"{name}.": type(getattr(profile, name)) for name in tables} | {"ops.NAME.": type(profile.rule("Conv"))}
    found = {field.name for field in dataclasses.fields(profile)} - tables - {"ops"}
    return found | {f"{prefix}{field.name}" for prefix, part in parts.items() for field in dataclasses.fields(part)}


def explained(page: str) -> set[str]:
    """The keys in the first column of the page's tables; `.key` is in the table of the key left of it."""
    found: set[str] = set()
    for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE):
        table = ""
        for name in re.findall(r"`(.*?)`", cell):
            prefix, _, key = name.rpartition(".")
            table = prefix or table
            found.add(f"{table}.{key}" if table else key)
    return found


def test_every_key_is_explained(root: Path) -> None:
    assert explained((root / "docs" / "profiles.md").read_text(encoding="utf-8")) == keys()
