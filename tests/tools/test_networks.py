"""The networks of the benchmarks: their published sizes, and activations as a trained network has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxq
from bench_support import networks
from bench_support.references import REFERENCES
from onnxq.cost.layer_costs import layer_costs, totals


@pytest.fixture(scope="module")
def small() -> onnx.ModelProto:
    """All four stages on images of 64×64."""
    return networks.resnet(10, size=64, width=16, classes=50)


@pytest.mark.parametrize(
    ("depth", "convolutions", "parameters", "macs"),
    [(18, 20, 11_689_512, 1_814_073_344), (50, 53, 25_557_032, 4_089_184_256)],
)
def test_published_sizes(depth: int, convolutions: int, parameters: int, macs: int) -> None:
    """torchvision's counts of weights and of multiply-accumulates (1.81 and 4.09 G)."""
    model = networks.resnet(depth)
    assert sum(n.op_type == "Conv" for n in model.graph.node) == convolutions
    trained = [t for t in model.graph.initializer if not t.name.endswith((".mean", ".variance"))]
    assert sum(int(np.prod(t.dims)) for t in trained) == parameters
    graph = onnxq.load(model).graph
    assert totals(graph, layer_costs(graph)).macs == macs


def test_the_same_seed_gives_the_same_bytes(small: onnx.ModelProto) -> None:
    again, other = (networks.resnet(10, size=64, width=16, classes=50, seed=s) for s in (0, 1))
    assert again.SerializeToString() == small.SerializeToString()
    assert other.SerializeToString() != small.SerializeToString()
    np.testing.assert_array_equal(networks.images(3, 16)[:2], networks.images(2, 16))


def test_activations_have_a_trained_networks_spread_and_images_differ(small: onnx.ModelProto) -> None:
    """On other images than those whose statistics it was given."""
    inner = [n.output[0] for n in small.graph.node if n.op_type == "BatchNormalization"]
    observed = onnx.ModelProto()
    observed.CopyFrom(small)
    observed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    values = onnxq.session(observed, threads=1).run(["logits", *inner], {"image": networks.images(16, 64, seed=5)})
    for name, value in zip(inner, values[1:], strict=True):
        expected = 0.4 if name.endswith(".2.bn") else 1.0
        assert 0.6 * expected < value.std() < 1.6 * expected, name
    assert len(set(values[0].argmax(axis=1))) >= 8


def test_images_have_the_spectrum_of_natural_ones() -> None:
    pixels = networks.images(32, 64, seed=3)
    assert pixels.shape == (32, 3, 64, 64)
    assert 0.7 < pixels.std() < 1.2
    plain = pixels - pixels.mean(axis=(2, 3), keepdims=True)
    neighbours = (plain[..., 1:] * plain[..., :-1]).mean() / (plain**2).mean()
    assert neighbours > 0.6


def test_the_shared_models_take_any_batch(shared: Path) -> None:
    for name in REFERENCES:
        model = networks.build(name)
        session = onnxq.session(model, threads=1)
        shape = [3, *session.get_inputs()[0].shape[1:]]
        out = session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})[0]
        assert len(out) == 3
