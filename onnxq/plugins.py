"""Plug-ins found by file name: each module of a folder defines one class with the name of the file."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from onnxq.errors import OnnxqError


class Named(Protocol):
    """A plug-in class. name: that of its file, with - for _; empty for base classes."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)


def modules(package: str) -> Iterator[types.ModuleType]:
    """The modules of a package, in the order of their names; folders and modules that start with _ are skipped."""
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not entry.ispkg and not entry.name.startswith("_"):
            yield importlib.import_module(f"{package}.{entry.name}")


@functools.cache
def find(package: str, base: type[T], error: type[OnnxqError] = OnnxqError) -> dict[str, type[T]]:
    """The plug-ins of a package by name, in the order of their files.

    package: its dotted name, as text: the code that finds plug-ins must not import them, since they import it.
    Raises `error` for a module that does not define exactly one subclass of `base`, or names it differently.
    """
    found: dict[str, type[T]] = {}
    for module in modules(package):
        name = module.__name__.rpartition(".")[2]
        cls = _only_class(module, base, error)
        if cls.name != name.replace("_", "-"):
            file = f"{package.rpartition('.')[2]}/{name}.py"
            raise error(f"{file} defines {_kind(base)} {cls.name!r}: the names must agree")
        found[cls.name] = cls
    return found


class Outline(NamedTuple):
    """A plug-in class as its source shows it. options: field → whether it has a default. constants: its ClassVars."""

    options: dict[str, bool]
    constants: dict[str, Any]


def outlines(package: str) -> dict[str, Outline]:
    """The plug-ins of a package by name, read from their source: nothing is imported, so help texts need not wait."""
    spec = importlib.util.find_spec(package)
    found = {}
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted(Path(folder).glob("[!_]*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                outline = _outline(node) if isinstance(node, ast.ClassDef) else None
                if outline is not None and outline.constants.get("name") == file.stem.replace("_", "-"):
                    found[outline.constants["name"]] = outline
    return found


def _outline(node: ast.ClassDef) -> Outline:
    outline = Outline({}, {})
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if not ast.unparse(field.annotation).startswith("ClassVar"):
            outline.options[field.target.id] = field.value is not None
        elif isinstance(field.value, ast.Constant):
            outline.constants[field.target.id] = field.value.value
    return outline


def _only_class(module: types.ModuleType, base: type[T], error: type[OnnxqError]) -> type[T]:
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__ and c.name
    ]
    if len(classes) != 1:
        raise error(f"{module.__name__} must define exactly one {_kind(base)}, it defines {len(classes)}")
    return classes[0]


def _kind(base: type) -> str:
    """RangeChooser → "range chooser"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in base.__name__).strip()


__all__ = ["Outline", "find", "modules", "outlines"]
