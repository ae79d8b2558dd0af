"""onnxq quantize: options, what is said, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxq import demo, read_card
from support.command import error_of, listing, onnxq, succeed
from support.demo_model import weights_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with its images as float arrays: 40 to calibrate on, 100 labelled ones to evaluate on."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(folder / "d.npz", image=demo.calibration_data()["image"][:40])
    validation = {name: array[:100] for name, array in demo.validation_data().items()}
    np.savez(folder / "v.npz", **validation)
    return folder


def layers(path: Path) -> dict[str, int]:
    """Stored element type of each layer's weight, by name; FLOAT where it has no integers."""
    return weights_of(onnx.load(path))


DATA = ("m.onnx", "--data", "d.npz", "-o")


def test_what_is_said_and_written(folder: Path, tmp_path: Path) -> None:
    done = succeed("quantize", *DATA, tmp_path / "m.int8.onnx", "--eval-data", "v.npz", cwd=folder)
    assert list(listing(tmp_path)) == ["m.int8.card.json", "m.int8.onnx"]
    assert done.out.splitlines()[-1] == f"wrote {tmp_path / 'm.int8.onnx'} and its card"
    assert "12 of 12 layers in integers" in done.out and "top-1" in done.out
    for line in ("fold-batchnorm: 11 changed", "observed", "insert-qdq"):
        assert line in done.err
    card = read_card(tmp_path / "m.int8.onnx")
    assert card.evaluation is not None and card.evaluation["samples"] == 100
    assert card.evaluation["against"]["agreement"] > 0.95
    assert card.resources.data[0].name == "d.npz" and card.resources.data[0].samples == 40
    assert str(folder) not in json.dumps(card.to_dict()), "a path of this machine in the card"


def test_quiet(folder: Path, tmp_path: Path) -> None:
    done = succeed("quantize", *DATA, tmp_path / "q.onnx", "-q", "--eval-data", "v.npz", cwd=folder)
    assert done.out == done.err == ""


def test_random_data_is_marked_loudly(folder: Path, tmp_path: Path) -> None:
    done = succeed("quantize", "m.onnx", "--random-data", "3", "--seed", "5", "-o", tmp_path / "q.onnx", cwd=folder)
    assert "RANDOM" in done.err and "RANDOM" in done.out
    assert read_card(tmp_path / "q.onnx").random_data


def test_bits_config_exclude_and_types(folder: Path, tmp_path: Path) -> None:
    names = list(layers(folder / "m.onnx"))
    (tmp_path / "c.toml").write_text(f'[nodes]\n"{names[3]}" = "float"\n"{names[4]}" = {{ weight_bits = 8 }}\n')
    target = tmp_path / "q.onnx"
    bits = ("--weight-bits", "4", "--activation-bits", "6", "--first-last-bits", "none")
    succeed("quantize", *DATA, target, *bits, "--config", tmp_path / "c.toml", "--exclude", names[5], cwd=folder)
    expected = dict.fromkeys(names, TensorProto.INT4)
    expected |= {names[3]: TensorProto.FLOAT, names[4]: TensorProto.INT8, names[5]: TensorProto.FLOAT}
    assert layers(target) == expected
    succeed("quantize", *DATA, target, "--op-types", "Gemm, Conv", cwd=folder)
    assert set(layers(target).values()) == {TensorProto.INT8}
    succeed("quantize", *DATA, target, "--op-types", "Gemm", cwd=folder)
    assert list(layers(target).values()).count(TensorProto.INT8) == 1


def test_overrides_by_expression(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"nodes": {".*": {"weight_bits": 4}}}')
    succeed("quantize", *DATA, tmp_path / "q.onnx", "--config", tmp_path / "c.json", cwd=folder)
    assert set(layers(tmp_path / "q.onnx").values()) == {TensorProto.INT4}


def test_a_profile_file_of_ones_own(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "my target.toml"
    own.write_text(
        'name = "mine"\nsummary = "layers only"\nsource = "a test"\n[graph]\nscheme = 1\n[weights]\nbits = [8]\n'
        'signed = true\nsymmetric = true\nnarrow_range = true\ngranularity = "per-tensor"\n[activations]\nbits = [8]\n'
        'sign = "unsigned"\nsymmetric = false\n[ops]\nConv = {}\n'
    )
    succeed("quantize", *DATA, tmp_path / "q.onnx", "--profile", own, cwd=folder)
    found = layers(tmp_path / "q.onnx")
    assert list(found.values()).count(TensorProto.INT8) == 11 and found[list(found)[-1]] == TensorProto.FLOAT
    assert read_card(tmp_path / "q.onnx").profile.name == "mine"


def test_verify_and_save_after(folder: Path, tmp_path: Path) -> None:
    after = f"fold-batchnorm={tmp_path / 'f.onnx'}"
    done = succeed("quantize", *DATA, tmp_path / "q.onnx", "--verify", "--save-after", after, cwd=folder)
    assert done.err.count("verified: output logits differs by at most") >= 5
    ops = {n.op_type for n in onnx.load(tmp_path / "f.onnx").graph.node}
    assert "BatchNormalization" not in ops and "QuantizeLinear" not in ops


def test_requantize(folder: Path, tmp_path: Path) -> None:
    succeed("quantize", *DATA, tmp_path / "a.onnx", cwd=folder)
    again = ("quantize", tmp_path / "a.onnx", "--data", "d.npz", "-o", tmp_path / "b.onnx")
    assert "--requantize" in error_of(onnxq(*again, cwd=folder))
    succeed(*again, "--requantize", "--profile", "tensorrt", cwd=folder)
    assert set(layers(tmp_path / "b.onnx").values()) == {TensorProto.INT8}
    assert read_card(tmp_path / "b.onnx").profile.name == "tensorrt"


def test_why_a_node_is_not_quantized_is_said(folder: Path, tmp_path: Path) -> None:
    names = list(layers(folder / "m.onnx"))
    done = succeed("quantize", *DATA, tmp_path / "q.onnx", "--exclude", f"{names[1]}|{names[2]}", cwd=folder)
    line = next(line for line in done.err.splitlines() if "left in float by the user" in line)
    assert "not changed (2)" in line and names[1] in line and names[2] in line
