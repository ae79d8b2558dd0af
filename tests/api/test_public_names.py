"""The public names of the package."""

from __future__ import annotations

import pkgutil

import pytest

import onnxq


def test_the_public_names_are_there() -> None:
    for name in onnxq.__all__:
        assert getattr(onnxq, name) is not None
    assert set(onnxq.__all__) <= set(dir(onnxq))


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing it would put the module in the function's place."""
    modules = {module.name for module in pkgutil.iter_modules(onnxq.__path__)}
    functions = {name for name in onnxq.__all__ if not isinstance(getattr(onnxq, name), type)}
    assert "profiles" in modules
    assert not modules & functions
    with pytest.raises(AttributeError, match="quantise"):
        onnxq.quantise  # noqa: B018
