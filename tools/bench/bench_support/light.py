"""ONNX's own test models ("light"): nine real architectures without weights, and with random ones."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxq.graph.model import load

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
# Fully connected layers of 400 MB and more in float32: onnxq folds constants up to 64 MiB.
HUGE = ("bvlc_alexnet", "vgg19", "zfnet512")


def path(name: str) -> Path:
    """Where ONNX keeps the model."""
    return FOLDER / f"light_{name}.onnx"


def shape_of(name: str) -> tuple[int, ...]:
    """Shape of the model's input."""
    return tuple(int(d) for d in load(path(name)).graph.inputs[0].shape)


@lru_cache(maxsize=2)
def alive(name: str) -> onnx.ModelProto:
    """The model with seeded random weights, and without the Softmax at its end, which would hide differences."""
    model = onnx.load(path(name))
    rng = np.random.default_rng(0)
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    use = {name: (n.op_type, i) for n in graph.node for i, name in enumerate(n.input)}
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            graph.initializer.append(_weight(node.output[0], tuple(shapes[node.input[0]]), use, rng))
        else:
            kept.append(node)
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name in shapes:
            tensor.CopyFrom(_weight(tensor.name, tuple(tensor.dims), use, rng))
    if kept[-1].op_type == "Softmax":
        graph.output[0].name = kept.pop().input[0]
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _weight(
    name: str, shape: tuple[int, ...], use: dict[str, tuple[str, int]], rng: np.random.Generator
) -> onnx.TensorProto:
    op, index = use.get(name, ("nothing reads it", 0))
    if op == "BatchNormalization" and index in (1, 4):  # scale, variance
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) < 2:
        values = rng.normal(0, 0.1, shape)
    else:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return numpy_helper.from_array(values.astype(np.float32), name)
