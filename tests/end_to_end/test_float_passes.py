"""Whole models through the float passes: old opsets, nine real architectures with random weights, real images."""

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import Model, load, to_proto
from onnxq.graph.walk import all_graphs
from onnxq.passes.fold_constants import FoldConstants
from support.build import floating
from support.prove.values import assert_close
from support.runs import run

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PASSES = "fold-constants,eliminate-identity,fold-batchnorm,fold-channel-affine,fuse-matmul-add"


def light_models() -> list[str]:
    return sorted(p.stem for p in LIGHT.glob("*.onnx"))


def randomize(source: Model) -> None:
    """Weights and normalizations as after training, where the file has constants of one value."""
    rng = np.random.default_rng(0)
    graph = source.graph
    variances = {id(n.inputs[4]) for n in graph.nodes if n.op == "BatchNormalization"}
    for tensor in graph.tensors().values():
        if not isinstance(tensor, gs.Constant) or tensor.values.dtype != np.float32:
            continue
        shape = tensor.values.shape
        if id(tensor) in variances:
            values = rng.uniform(0.5, 2, shape)
        elif len(shape) in (2, 4):
            values = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            values = rng.uniform(0.5, 1.5, shape)
        tensor.values = values.astype(np.float32)


def cut_softmax(source: Model) -> None:
    """Make the input of a final Softmax the output: saturated probabilities would hide differences."""
    last = source.graph.outputs[0].inputs[0]
    if last.op == "Softmax":
        last.inputs[0].dtype = np.dtype(np.float32)
        source.graph.outputs = [last.inputs[0]]


HEAVY = ("light_bvlc_alexnet", "light_vgg19", "light_zfnet512")  # hundreds of MB of random weights


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in light_models()]
)
def test_light_models_keep_their_values(name):
    source = load(LIGHT / f"{name}.onnx")
    assert FoldConstants().apply(source.graph, PassContext(source)).changed > 0
    randomize(source)
    cut_softmax(source)
    (feed,) = floating.feeds(source, 1)
    before = run(source, feed)
    for text in (PASSES, "convert-opset{version=21}"):
        for report in pipeline.run(source, pipeline.parse(text), PassContext(source)):
            assert report.seconds < 10, report.text
        for output, value in run(source, feed).items():
            assert_close(before[output], value, 1e-4)
    left = {n.op for n in source.graph.nodes}
    assert not left & {"BatchNormalization", "Dropout", "Unsqueeze", "Identity"}
    again = pipeline.run(source, pipeline.parse(PASSES), PassContext(source))
    assert {r.text: r.changed for r in again if r.changed} == {}


@pytest.mark.parametrize("name", light_models())
def test_light_models_as_they_are_give_their_recorded_outputs(name):
    source = load(LIGHT / f"{name}.onnx")
    pipeline.run(source, pipeline.parse(f"{PASSES},convert-opset{{version=13}}"), PassContext(source))
    written = to_proto(source)
    onnx.checker.check_model(written, full_check=True)
    recorded = onnx.TensorProto.FromString((LIGHT / f"{name}_output_0.pb").read_bytes())
    (tensor,) = source.graph.inputs
    count = int(np.prod(tensor.shape))
    ramp = np.arange(count).reshape(tensor.shape) / count  # what the package's own test feeds
    (found,) = run(written, {tensor.name: ramp.astype(np.float32)}).values()
    assert_close(onnx.numpy_helper.to_array(recorded), found, 1e-4)


def test_densenet_keeps_only_the_scales_that_have_no_layer_before_them():
    source = load(LIGHT / "light_densenet121.onnx")
    pipeline.run(source, pipeline.parse(PASSES), PassContext(source))
    ops = [n.op for n in source.graph.nodes]
    assert {op: ops.count(op) for op in ("Conv", "Mul", "Add", "BatchNormalization")} == {
        "Conv": 121,
        "Mul": 62,
        "Add": 62,
        "BatchNormalization": 0,
    }


def test_weights_that_would_blow_up_the_file_stay_computed():
    source = load(LIGHT / "light_vgg19.onnx")
    (report,) = pipeline.run(source, [FoldConstants()], PassContext(source))
    assert [f.node for f in report.skipped] == ["fc6_w_0"]
    assert "392.0 MiB" in report.skipped[0].reason


@pytest.mark.parametrize("name", ["mobilenetv2_imagenet", "squeezenet_imagenet", "resnet20_cifar10"])
def test_shared_models_keep_their_values(shared, name):
    source = load(shared / "models" / f"{name}.onnx")
    inputs = floating.feeds(source, 1)
    before = run(source, inputs[0])
    reports = pipeline.run(source, pipeline.parse(PASSES), PassContext(source), verify=True)
    for output, value in run(source, inputs[0]).items():
        assert_close(before[output], value, 1e-4)
    assert all(set(r.differences) == {t.name for t in source.graph.outputs} for r in reports)
    assert "BatchNormalization" not in {n.op for g in all_graphs(source.graph) for n in g.nodes}
