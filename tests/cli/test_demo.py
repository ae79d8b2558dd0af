"""onnxq demo: no download, seconds, and files to go on with."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from onnxq import read_card
from support.command import listing, succeed


def shares(out: str) -> dict[str, float]:
    """top-1 in percent by the first words of a row."""
    return {m[1].strip(): float(m[2]) for m in re.finditer(r"^(float32|int8|int4 weights)\s+([\d.]+) %", out, re.M)}


def test_the_demo(tmp_path: Path) -> None:
    done = succeed("demo", "-o", tmp_path / "new" / "folder")
    found = shares(done.out)
    assert found.keys() == {"float32", "int8", "int4 weights"}
    assert found["float32"] >= 98.5 and found["int8"] >= found["float32"] - 1
    assert found["int4 weights"] >= found["float32"] - 3
    files = set(listing(tmp_path / "new" / "folder"))
    assert {"digits.int8.onnx", "digits.int8.card.json", "digits.int4.onnx", "digits.int4.card.json"} <= files
    for name in ("digits.int8.onnx", "digits.int4.onnx"):
        path = tmp_path / "new" / "folder" / name
        onnx.checker.check_model(onnx.load(path), full_check=True)
        card = read_card(path)
        assert card.evaluation is not None and card.evaluation["top1"] >= 0.95
        assert card.summary().splitlines()[0].startswith("digits_cnn.onnx")
    for told in re.findall(r"onnxq (card|eval|compare|check|inspect|quantize) (\S+)", done.err):
        assert Path(told[1]).exists(), f"{told} is suggested but not there"


def test_without_a_folder_nothing_is_left(tmp_path: Path) -> None:
    done = succeed("demo", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert len(shares(done.out)) == 3
    assert set(listing(tmp_path)) <= {".ses"}, "onnxruntime leaves .ses in the temporary folder, onnxq nothing"


@pytest.mark.parametrize("profile", ["onnxq", "openvino"])
def test_other_profiles(profile: str) -> None:
    """Those that take 4-bit weights; the others say so."""
    assert len(shares(succeed("demo", "--profile", profile).out)) == 3
