"""What `pip install` leaves behind."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import onnxq
import onnxq.passes
from onnxq.execution import library

DISTRIBUTION = importlib.metadata.distribution("onnxq")


def is_editable() -> bool:
    origin = json.loads(DISTRIBUTION.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def installed(name: str) -> Path:
    """A file of the package, wherever one of its folders holds it."""
    return next(path for folder in onnxq.__path__ if (path := Path(folder, name)).exists())


def test_the_installed_package_is_tested_not_the_checkout(root: Path) -> None:
    assert root not in [Path(entry or os.curdir).resolve() for entry in sys.path]
    assert onnxq.__file__ is not None
    assert Path(onnxq.__file__).is_relative_to(root / "onnxq") == is_editable()


def test_the_installed_package_is_this_checkout(root: Path) -> None:
    """A stale install would make every other test meaningless."""
    for source, target in (
        (root / "onnxq", installed("__init__.py").parent),
        (root / "passes", Path(onnxq.passes.__path__[0])),
    ):
        for path in source.rglob("*.py"):
            copy = target / path.relative_to(source)
            assert copy.is_file(), f"{path.relative_to(root)} is not installed: pip install again"
            assert copy.read_bytes() == path.read_bytes(), f"{path.relative_to(root)} has changed: pip install again"


def test_passes_are_found_inside_the_package(root: Path) -> None:
    names = {module.name for module in pkgutil.iter_modules(onnxq.passes.__path__)}
    assert names == {path.stem for path in (root / "passes").glob("*.py")} - {"__init__"}
    assert names


def test_passes_are_no_package_of_their_own() -> None:
    assert importlib.util.find_spec("passes") is None


def test_types_and_profiles_are_shipped(root: Path) -> None:
    assert installed("py.typed").is_file()
    profiles = {path.name for path in (root / "onnxq" / "profiles").glob("*.toml")}
    assert profiles == {path.name for path in installed("profiles").glob("*.toml")}


def test_the_kernel_library_is_installed() -> None:
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", ""), "c++", "g++", "clang++")):
        pytest.skip("no C++ compiler here, so onnxq was installed without its kernels")
    assert library.library_path().is_file()


def test_the_command_points_to_a_function() -> None:
    (script,) = (e for e in DISTRIBUTION.entry_points if e.group == "console_scripts")
    assert (script.name, script.value) == ("onnxq", "onnxq.cli.main:main")
    assert callable(script.load())


def test_one_version_everywhere(root: Path) -> None:
    from onnxq._version import __version__

    assert __version__ == DISTRIBUTION.version
    newest = re.search(r"^## \[?(\d[^\]\s]*)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_metadata() -> None:
    metadata = DISTRIBUTION.metadata
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) == {"cpu", "gpu", "images", "plots", "dev"}


def test_dev_brings_what_the_other_extras_bring(root: Path) -> None:
    """README command 2 installs [cpu,dev] and runs every test."""
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["images"]) | set(extras["plots"]) <= set(extras["dev"])
