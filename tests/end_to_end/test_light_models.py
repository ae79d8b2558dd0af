"""ONNX's own test models, nine real architectures in opset 3 to 9, through `opt` and `quantize`.

Their weights are ConstantOfShape nodes with one value per tensor: their ranges reach 1e31, and all outputs are equal.
So each is also tested with random weights of the usual sizes, where the quantized model must follow the float one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxq
from bench_support.light import FOLDER as LIGHT
from bench_support.light import HUGE, NAMES, alive, path
from bench_support.light import shape_of as published_shape
from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load, to_proto
from onnxq.numeric.metrics import sqnr_db
from onnxq.profiles.schema import builtin_names
from support.command import succeed

PIPELINE = "fold-constants,eliminate-identity,fold-batchnorm"
# Folding turns these BatchNormalization nodes into Mul and Add: no layer feeds them alone.
STANDALONE = {"densenet121": 62}
QUICK = ("squeezenet", "shufflenet")
PROFILES = ("onnxruntime-cpu", "tensorrt")


def quick(*first: str) -> list[Any]:
    """All models, those that are not `first` marked slow."""
    return [pytest.param(name, marks=() if name in first else pytest.mark.slow) for name in NAMES]


def published(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Input and expected output of ONNX's backend test."""
    tensor = onnx.TensorProto.FromString((LIGHT / f"light_{name}_output_0.pb").read_bytes())
    shape = load(path(name)).graph.inputs[0].shape
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32), numpy_helper.to_array(tensor)


def run(model: Any, x: NDArray[np.float32], optimize: bool = False) -> NDArray[np.float32]:
    """The first output for one input."""
    session = onnxq.session(model, threads=2, optimize=optimize)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_these_are_all_of_them() -> None:
    assert sorted(p.stem.removeprefix("light_") for p in LIGHT.glob("*.onnx")) == sorted(NAMES)


@pytest.mark.parametrize("name", quick("squeezenet", "shufflenet", "densenet121"))
def test_opt(name: str, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    done = succeed("opt", path(name), "-o", target, "-p", PIPELINE, "--verify", "--random-data", "1")
    assert done.out.count("verified: output") == 3
    made = onnx.load(target)
    ops = [node.op_type for node in made.graph.node]
    assert "BatchNormalization" not in ops and "Dropout" not in ops and "Identity" not in ops
    assert ops.count("ConstantOfShape") == 0 or name in HUGE
    original = onnx.load(path(name))
    assert len(ops) < len(original.graph.node)
    # in opset 3 and below every initializer is an input as well
    assert [i.name for i in made.graph.input] == [t.name for t in load(original).graph.inputs]
    x, expected = published(name)
    np.testing.assert_allclose(run(target, x), expected, rtol=1e-3)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", quick(*QUICK))
def test_quantize(name: str, profile: str, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    done = succeed("quantize", path(name), "-o", target, "--profile", profile, "--random-data", "2")
    assert "RANDOM" in done.err
    made = onnx.load(target)
    scales = scales_of(made)
    assert len(scales) > 10
    for scale in scales:
        assert np.isfinite(scale).all() and (scale > 0).all()
    x, expected = published(name)
    for optimize in (False, True):
        assert run(target, x, optimize).shape == expected.shape


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", quick(*QUICK))
def test_with_random_weights_the_quantized_model_follows(name: str, profile: str) -> None:
    model = alive(name)
    made = onnxq.quantize(model, random_data=4, profile=profile, calibration="max", qdq=True).model
    x = np.random.default_rng(9).standard_normal(published_shape(name)).astype(np.float32)
    expected = run(model, x)
    assert expected.std() > 0.05
    for optimize in (False, True):
        assert sqnr_db(expected, run(made, x, optimize)) > 28


@pytest.mark.slow
@pytest.mark.parametrize("profile", [p for p in builtin_names() if p not in PROFILES])
@pytest.mark.parametrize("name", [n for n in NAMES if n not in HUGE])
def test_every_profile_on_random_weights(name: str, profile: str) -> None:
    model = alive(name)
    made = onnxq.quantize(model, random_data=4, profile=profile, calibration="max", qdq=True).model
    x = np.random.default_rng(9).standard_normal(published_shape(name)).astype(np.float32)
    # per-tensor scales and powers of two cost most of the margin
    assert sqnr_db(run(model, x), run(made, x)) > (15 if profile in ("tvm", "snpe") else 25)


@pytest.mark.parametrize("name", quick("densenet121", *QUICK))
def test_folding_is_exact_with_random_weights(name: str) -> None:
    """With random weights: verification sees only what constant weights leave of a model."""
    model = load(alive(name))
    x = np.random.default_rng(9).standard_normal(published_shape(name)).astype(np.float32)
    before = run(to_proto(model), x)
    reports = pipeline.run(model, pipeline.parse(PIPELINE), PassContext(model))
    made = to_proto(model)
    np.testing.assert_allclose(run(made, x), before, atol=1e-4 * np.abs(before).max())
    ops, old = ([node.op_type for node in m.graph.node] for m in (made, onnx.load(path(name))))
    assert "BatchNormalization" not in ops
    assert ops.count("Mul") == old.count("Mul") + STANDALONE.get(name, 0)
    assert reports[2].changed == old.count("BatchNormalization")


def scales_of(model: onnx.ModelProto) -> list[NDArray[Any]]:
    """Every scale of a QuantizeLinear or DequantizeLinear."""
    names = {n.input[1] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return [numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names]
