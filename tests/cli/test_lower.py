"""`onnxq lower`, `onnxq check --integer-only` and `onnxq quantize --qdq` as users run them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq import demo
from onnxq.card import read_card
from support.build import Qdq
from support.command import listing, onnxq, succeed

RNG = np.random.default_rng(19)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.onnx (float), digits.qdq.onnx, digits.int.onnx, islands.onnx (QDQ)."""
    where = tmp_path_factory.mktemp("lower")
    (where / "digits.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(where / "data.npz", image=demo.calibration_data()["image"][:32])
    quantize = ("quantize", "digits.onnx", "--data", "data.npz", "--profile", "onnxq", "-o")
    succeed(*quantize, "digits.qdq.onnx", "--qdq", cwd=where)
    succeed(*quantize, "digits.int.onnx", cwd=where)
    made = Qdq("float[2,4] x", "float[2,4] r").q("x", 0.0117).node("[cum] y = CumSum(x_d, k)").const("k", 1, np.int64)
    onnx.save(made.q("y", 0.0333).node("r = Identity(y_d)").proto(), where / "islands.onnx")
    return where


def test_lower_says_what_it_made(folder: Path, tmp_path: Path) -> None:
    done = succeed("lower", "digits.qdq.onnx", "-o", tmp_path / "m.onnx", cwd=folder)
    lines = done.out.splitlines()
    assert lines[0].split()[1:3] == ["integer", "operators:"]
    assert lines[1].startswith("multipliers: ")
    assert lines[2] == "integer-only: no float operator between the first QuantizeLinear and the last DequantizeLinear"
    assert lines[3] == f"wrote {tmp_path / 'm.onnx'}"
    assert "lower-dyadic" in done.err and "layout-nhwc" in done.err
    assert set(listing(tmp_path)) == {"m.card.json", "m.onnx"}
    assert read_card(tmp_path / "m.onnx").lowering is not None


def test_lower_lists_islands_and_succeeds(folder: Path, tmp_path: Path) -> None:
    done = succeed("lower", "islands.onnx", "-o", tmp_path / "m.onnx", cwd=folder)
    assert "1 operator(s) left in float:" in done.out
    assert "  cum (CumSum): CumSum has no integer operator" in done.out.splitlines()


def test_quiet_says_nothing(folder: Path, tmp_path: Path) -> None:
    done = succeed("lower", "-q", "islands.onnx", "-o", tmp_path / "m.onnx", cwd=folder)
    assert (done.out, done.err) == ("", "")


REFUSED = {
    "float": (("digits.onnx",), "is a float model, nothing to lower: quantize it first"),
    "missing": (("none.onnx",), "no such file"),
    "shape": (("digits.qdq.onnx", "--input-shape", "image:1x3"), "does not fit"),
    "form": (("digits.qdq.onnx", "--rescale", "half"), "'half' is not one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    arguments, message = REFUSED[name]
    done = onnxq("lower", *arguments, "-o", tmp_path / "m.onnx", cwd=folder)
    assert done.code != 0 and message in done.err
    assert len(done.err.splitlines()) == 1 and not listing(tmp_path)


def test_check_integer_only(folder: Path) -> None:
    done = succeed("check", "--integer-only", "digits.int.onnx", cwd=folder)
    assert done.out.strip().endswith(
        "is integer-only: no float operator between the first QuantizeLinear and the last DequantizeLinear"
    )
    done = onnxq("check", "--integer-only", "islands.onnx", cwd=folder)
    assert done.code == 1
    assert "CumSum has no integer operator" in done.out
    assert done.out.splitlines()[-1] == "islands.onnx is not integer-only: 1 operator(s) left in float"
    done = onnxq("check", "--integer-only", "digits.onnx", cwd=folder)
    assert done.code == 1 and done.out.strip() == "digits.onnx is not integer-only: it is not quantized"


def test_check_integer_only_as_json(folder: Path) -> None:
    done = onnxq("check", "--integer-only", "--json", "islands.onnx", cwd=folder)
    told = json.loads(done.out)
    assert done.code == 1 and told["integer_only"] is False and told["quantized"] is True
    assert told["float"] == [{"node": "cum", "op": "CumSum", "reason": "CumSum has no integer operator"}]
    assert json.loads(succeed("check", "--integer-only", "--json", "digits.int.onnx", cwd=folder).out)["integer_only"]


@pytest.mark.parametrize("options", [(), ("--integer-only", "--profile", "onnxq")])
def test_check_wants_one_question(folder: Path, options: tuple[str, ...]) -> None:
    done = onnxq("check", *options, "digits.onnx", cwd=folder)
    assert done.code == 2 and "--profile NAME or --integer-only" in done.err


def test_qdq_stops_before(folder: Path) -> None:
    assert not any(n.domain for n in onnx.load(folder / "digits.qdq.onnx").graph.node)
    assert read_card(folder / "digits.qdq.onnx").lowering is None
    assert read_card(folder / "digits.int.onnx").lowering is not None
