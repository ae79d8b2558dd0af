"""The real images and arrays, against values computed here from their own documentation."""

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxq.data.source import batches, input_specs, open_data

Image = pytest.importorskip("PIL.Image")


def specs(shared: Path, model: str) -> tuple:
    return input_specs(gs.import_onnx(onnx.load(shared / "models" / model)))


def test_imagenet_for_mobilenet(shared: Path) -> None:
    inputs = specs(shared, "mobilenetv2_imagenet.onnx")
    source = open_data(shared / "data/imagenet_calib", inputs, preprocess="imagenet-tf", limit=11)
    assert (source.count(), source.labels_available) == (11, True)
    found = list(batches(source, inputs, 4))
    assert [b.feeds["input"].shape[0] for b in found] == [4, 4, 3]
    for batch in found:
        for row, name in enumerate(batch.names):
            pixels = np.asarray(Image.open(shared / "data/imagenet_calib" / name), np.float64)
            expected = (pixels / 127.5 - 1).transpose(2, 0, 1)
            np.testing.assert_allclose(batch.feeds["input"][row], expected, atol=1e-6)


def test_imagenet_for_squeezenet(shared: Path) -> None:
    inputs = specs(shared, "squeezenet_imagenet.onnx")
    source = open_data(shared / "data/imagenet_val", inputs, preprocess="caffe")
    assert source.count() == 300
    batch = next(batches(source, inputs, 16))
    assert (batch.count, batch.feeds["data_0"].shape) == (1, (1, 3, 224, 224))  # the model's batch is fixed
    pixels = np.asarray(Image.open(shared / "data/imagenet_val" / batch.names[0]), np.float64)
    expected = pixels[..., ::-1].transpose(2, 0, 1) - np.array([103.939, 116.779, 123.68])[:, None, None]
    np.testing.assert_allclose(batch.feeds["data_0"][0], expected, atol=1e-5)


def test_cifar(shared: Path) -> None:
    inputs = specs(shared, "resnet20_cifar10.onnx")
    source = open_data(shared / "data/cifar10_calib.npz", inputs, preprocess="cifar10")
    with np.load(shared / "data/cifar10_calib.npz") as file:
        images, labels = file["images"], file["labels"]
    found = list(batches(source, inputs, 100, start=50))
    assert [b.count for b in found] == [100, 100, 100, 100, 62]
    mean, std = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])
    expected = ((images[50:] - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(np.concatenate([b.feeds["input"] for b in found]), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in found if b.labels is not None]), labels[50:])
    assert source.describe()["sha256"] == source.describe()["sha256"]
