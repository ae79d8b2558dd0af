"""onnxq passes: the list, and one pass with its options."""

from __future__ import annotations

from onnxq.pipeline import available
from support.command import error_of, onnxq, succeed


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


def test_another_name_is_suggested() -> None:
    assert "fold-batchnorm" in error_of(onnxq("passes", "fold-batchnrom"))
