"""onnxq passes: the list, and one pass with its options."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from onnxq.pipeline import available
from support.command import error_of, inside, onnxq, succeed


def test_the_list_has_every_pass_on_one_line() -> None:
    lines = succeed("passes").out.splitlines()
    for name, cls in available().items():
        line = next(line for line in lines if line.split()[0] == name)
        assert (" yes " in line) == cls.preserves_values
        assert line.rstrip().endswith((cls.__doc__ or "").splitlines()[0])
    assert len(lines) == len(available()) + 1


def test_one_pass_shows_its_options() -> None:
    said = succeed("passes", "insert-qdq").out
    assert said.startswith("insert-qdq: Insert QuantizeLinear")
    assert "profile = ''" in said and "calibration = None" in said


def test_an_option_without_a_default_is_required() -> None:
    said = succeed("passes", "convert-opset").out
    assert "  version  (int, required)" in said
    for name, cls in available().items():
        shown = inside("passes", name, cwd=Path()).out
        assert "MISSING" not in shown
        for option in dataclasses.fields(cls):
            assert f"  {option.name} " in shown
    table = json.loads(succeed("passes", "convert-opset", "--json").out)
    option = next(o for o in table["options"] if o["name"] == "version")
    assert option == {"name": "version", "type": "int", "required": True}


def test_another_name_is_suggested() -> None:
    assert "fold-batchnorm" in error_of(onnxq("passes", "fold-batchnrom"))
