"""Where every profile puts Q/DQ in small blocks: golden text, and the rules of the schemes checked on the graph.

The text is written by tools/generators/update_golden.py and read by a person before it is committed.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import update_golden
from onnx_graphsurgeon import Tensor

from onnxq.graph.match import consumers, producer
from onnxq.graph.model import Model, to_proto
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import qdq
from support.insertion import context, insert
from support.prove.nodes import nodes_of
from support.prove.values import sqnr
from support.runs import run
from support.saturation import require_exact_openvino

BLOCKS = list(update_golden.BLOCKS)
RESIDUALS = [name for name in BLOCKS if "residual" in name]


def quantized(block: str, profile: str) -> Model:
    return update_golden.quantized(block, profile)


@pytest.mark.parametrize("profile", builtin_names())
def test_golden(profile: str) -> None:
    expected = (update_golden.GOLDEN / f"{profile}.txt").read_text(encoding="utf-8")
    assert update_golden.golden(profile) == expected, "read the difference, then run tools/generators/update_golden.py"


@pytest.mark.parametrize("profile", builtin_names())
def test_golden_findings(profile: str) -> None:
    expected = (update_golden.GOLDEN / "check" / f"{profile}.txt").read_text(encoding="utf-8")
    assert update_golden.golden_check(profile) == expected, (
        "read the difference, then run tools/generators/update_golden.py"
    )


@pytest.mark.parametrize("folder", [".", "check"])
def test_every_golden_file_has_its_profile(folder: str) -> None:
    assert sorted(p.stem for p in (update_golden.GOLDEN / folder).glob("*.txt")) == builtin_names()


# What the schemes require, asserted apart from the text.


def from_dequantize(tensor: Tensor) -> bool:
    made_by = producer(tensor)
    return made_by is not None and made_by.op == "DequantizeLinear"


@pytest.mark.parametrize("block", RESIDUALS)
@pytest.mark.parametrize("profile", builtin_names())
def test_inputs_of_adds(profile: str, block: str) -> None:
    model = quantized(block, profile)
    (add,) = nodes_of(model, "Add")
    inputs = [from_dequantize(t) for t in add.inputs]
    scheme = load_profile(profile).graph.scheme
    assert sum(inputs) == {1: 0, 2: 1, 3: 2}[scheme]
    if scheme == 2:
        # The residual branch's last convolution enters directly, and the shortcut carries the Q/DQ.
        direct = producer(add.inputs[inputs.index(False)])
        assert direct is not None and direct.name in ("conv2", "project") and consumers(direct.outputs[0]) == [add]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("profile", builtin_names())
def test_every_tensor_is_quantized_once(profile: str, block: str) -> None:
    model = quantized(block, profile)
    sources = [n.inputs[0].name for n in nodes_of(model, "QuantizeLinear")]
    assert len(sources) == len(set(sources))
    for node in nodes_of(model, "QuantizeLinear"):
        assert len(consumers(node.outputs[0])) == 1


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("profile", builtin_names())
def test_layers(profile: str, block: str) -> None:
    target, model = load_profile(profile), quantized(block, profile)
    for node in (*nodes_of(model, "Conv"), *nodes_of(model, "Gemm")):
        assert from_dequantize(node.inputs[0]) and from_dequantize(node.inputs[1])
        if len(node.inputs) > 2:
            assert from_dequantize(node.inputs[2]) == (target.bias == "int32")
        # No Q/DQ between a layer and the activation fused into it; no activation where Q absorbs it.
        readers = consumers(node.outputs[0])
        activations = [n.op for n in readers if n.op in ("Relu", "Clip")]
        if activations:
            assert len(readers) == 1 and not target.graph.absorb_activations
    if target.graph.absorb_activations:
        assert not nodes_of(model, "Relu") and not nodes_of(model, "Clip")


@pytest.mark.parametrize("profile", builtin_names())
def test_concat(profile: str) -> None:
    model = quantized("concat block (fire)", profile)
    (concat,) = nodes_of(model, "Concat")
    inputs = [from_dequantize(t) for t in concat.inputs]
    rule = load_profile(profile).graph.concat
    assert inputs == ([False, False] if rule == "float" else [True, True])
    if rule != "float":
        scales = {float(producer(t).inputs[1].values) for t in concat.inputs}  # type: ignore[union-attr]
        assert len(scales) == (1 if rule == "shared" else 2)


@pytest.mark.parametrize("profile", builtin_names())
def test_types(profile: str) -> None:
    target = load_profile(profile)
    activation, weight = target.activations.format(8, False), target.weights.format(8)
    for block in BLOCKS:
        model = quantized(block, profile)
        onnx.checker.check_model(to_proto(model), full_check=True)
        for node in nodes_of(model, "QuantizeLinear"):
            assert str(node.inputs[2].values.dtype) == ("int8" if activation.signed else "uint8")
            assert not (activation.symmetric and node.inputs[2].values.any())
        for node in nodes_of(model, "Conv"):
            dq = producer(node.inputs[1])
            assert dq is not None
            codes, scale = dq.inputs[0].values, dq.inputs[1].values
            assert str(codes.dtype) == ("int8" if weight.signed else "uint8")
            assert scale.shape == ((codes.shape[0],) if target.weights.granularity == "per-channel" else ())
            assert not (weight.symmetric and dq.inputs[2].values.any())


@pytest.mark.parametrize("block", [BLOCKS[0], BLOCKS[3], BLOCKS[4]])
@pytest.mark.parametrize("profile", builtin_names())
def test_runs_in_openvino(profile: str, block: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    require_exact_openvino()
    model = update_golden.block(block)
    feeds = qdq.feeds(model)
    insert(model, context(model, profile, feeds), fuse=True)
    onnx.save(to_proto(model), tmp_path / "m.onnx")
    core = openvino.Core()
    # On CPUs with bfloat16 it would compute in that.
    compiled = core.compile_model(core.read_model(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for feed in feeds:
        (expected,) = run(model, feed).values()
        found = compiled(feed)[0]
        assert sqnr(expected, found) > 25
