"""The networks that benchmarks and tests run: ResNets with generated weights, and the models of ../shared.

The ResNets have the shapes of the published ones (He et al. 2015; stride in the 3×3 convolution of a bottleneck) with
weights drawn after He, and with BatchNormalization whose statistics were measured on generated images: activations have
the spread they have in a trained network, every channel is used, and images differ in their logits. The last
normalization of a residual branch is damped, as training does. Speed depends on none of this; agreement between a float
and an integer model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench_support.references import REFERENCES, Dataset, imagenet

OPSET, IR_VERSION = 17, 8
EPSILON = 1e-5
STATISTICS_IMAGES = 4
# Depth → (blocks of each stage, whether they are bottlenecks).
DEPTHS = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}
# What each network is calibrated and validated on, where ../shared is available.
DATA: dict[str, Dataset] = {
    "resnet18": imagenet("imagenet"),
    "resnet50": imagenet("imagenet"),
    **{name: reference.data for name, reference in REFERENCES.items()},
}
NAMES = tuple(DATA)


def build(name: str) -> onnx.ModelProto:
    """The float model of this name, any batch size. FileNotFoundError for one of ../shared where that is missing."""
    if name in REFERENCES:
        return free_batch(onnx.load(str(REFERENCES[name].path)))
    return resnet(int(name.removeprefix("resnet")))


def resnet(depth: int = 50, *, size: int = 224, width: int = 64, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """A ResNet of 10 (for tests), 18, 34 or 50 layers.

    Input `image`, float32 [N, 3, size, size]; output `logits` [N, classes]. width: channels of the first stage.
    """
    feed = images(STATISTICS_IMAGES, size, seed)
    measured = _run(_network(depth, size, width, classes, seed, None).model("statistics"), feed)
    return _network(depth, size, width, classes, seed, measured).model(f"resnet{depth}")


def images(count: int, size: int = 224, seed: int = 0) -> NDArray[np.float32]:
    """Generated images [count, 3, size, size] with the spectrum of natural ones (amplitude ∝ 1/frequency).

    Image i depends on size, seed and i only.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1.0 / np.maximum(frequency, 1.0 / size)
    made = np.empty((count, 3, size, size), np.float32)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        shape = (3, *amplitude.shape)
        spectrum = amplitude * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        plain = np.fft.irfft2(spectrum, s=(size, size))
        plain -= plain.mean(axis=(1, 2), keepdims=True)
        plain /= plain.std(axis=(1, 2), keepdims=True)
        made[i] = rng.uniform(0.5, 1.2) * plain + rng.normal(0.0, 0.4, (3, 1, 1))
    return made


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a free first axis of its inputs and outputs. It must not reshape to a fixed batch."""
    constants = {t.name for t in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return model


@dataclass
class _Network:
    """A graph under construction. statistics: of every normalization; None writes them as outputs instead of using
    them."""

    rng: np.random.Generator
    statistics: dict[str, NDArray] | None
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, which has its name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, values: NDArray) -> str:
        """Add an initializer."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def conv(self, name: str, x: str, shape: tuple[int, int, int, int], stride: int, gain: float = 1.0) -> str:
        """Convolution (weights [M, C, k, k] after He) and normalization."""
        out, depth, kernel, _ = shape
        spread = np.sqrt(2.0 / (depth * kernel * kernel))
        weight = self.constant(f"{name}.weight", self.rng.normal(0.0, spread, shape))
        pad = kernel // 2
        made = self.node(
            "Conv", f"{name}.conv", [x, weight], kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4
        )
        return self.normalize(f"{name}.bn", made, out, gain)

    def normalize(self, name: str, x: str, channels: int, gain: float) -> str:
        """BatchNormalization; its statistics are those of the batch when they are not known yet."""
        gamma = self.constant(f"{name}.gamma", gain * self.rng.uniform(0.7, 1.3, channels))
        beta = self.constant(f"{name}.beta", self.rng.normal(0.0, 0.2, channels))
        moments = (f"{name}.mean", f"{name}.variance")
        if self.statistics is not None:
            measured = [self.constant(key, self.statistics[key].ravel()) for key in moments]
            return self.node("BatchNormalization", name, [x, gamma, beta, *measured], epsilon=EPSILON)
        mean = self.node("ReduceMean", moments[0], [x], axes=[0, 2, 3], keepdims=1)
        centred = self.node("Sub", f"{name}.centred", [x, mean])
        square = self.node("Mul", f"{name}.square", [centred, centred])
        self.node("ReduceMean", moments[1], [square], axes=[0, 2, 3], keepdims=1)
        for key in moments:
            self.outputs.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, [1, channels, 1, 1]))
        vectors = [self.node("Reshape", f"{key}.vector", [key, self._vector()]) for key in moments]
        return self.node("BatchNormalization", name, [x, gamma, beta, *vectors], epsilon=EPSILON)

    def block(self, name: str, x: str, channels: tuple[int, int, int], stride: int, bottleneck: bool) -> str:
        """Residual block. channels: of the input, inside, of the output."""
        given, inside, out = channels
        if bottleneck:
            y = self.node("Relu", f"{name}.relu1", [self.conv(f"{name}.1", x, (inside, given, 1, 1), 1)])
            y = self.node("Relu", f"{name}.relu2", [self.conv(f"{name}.2", y, (inside, inside, 3, 3), stride)])
            y = self.conv(f"{name}.3", y, (out, inside, 1, 1), 1, gain=0.4)
        else:
            y = self.node("Relu", f"{name}.relu1", [self.conv(f"{name}.1", x, (inside, given, 3, 3), stride)])
            y = self.conv(f"{name}.2", y, (out, inside, 3, 3), 1, gain=0.4)
        skip = x
        if stride != 1 or given != out:
            skip = self.conv(f"{name}.skip", x, (out, given, 1, 1), stride)
        return self.node("Relu", f"{name}.relu", [self.node("Add", f"{name}.add", [y, skip])])

    def model(self, name: str) -> onnx.ModelProto:
        """The finished model, checked."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(made)
        return made

    def _vector(self) -> str:
        name = "vector_shape"
        if all(t.name != name for t in self.constants):
            self.constants.append(numpy_helper.from_array(np.array([-1], np.int64), name))
        return name


def _network(
    depth: int, size: int, width: int, classes: int, seed: int, statistics: dict[str, NDArray] | None
) -> _Network:
    blocks, bottleneck = DEPTHS[depth]
    net = _Network(np.random.default_rng([seed, depth]), statistics)
    net.inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size]))
    x = net.node("Relu", "stem.relu", [net.conv("stem", "image", (width, 3, 7, 7), 2)])
    x = net.node("MaxPool", "stem.pool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    given = width
    for stage, count in enumerate(blocks):
        inside = width << stage
        out = 4 * inside if bottleneck else inside
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = net.block(f"stage{stage + 1}.{index}", x, (given, inside, out), stride, bottleneck)
            given = out
    x = net.node("Flatten", "flatten", [net.node("GlobalAveragePool", "pool", [x])])
    weight, bias = net.rng.normal(0.0, 3.0 / np.sqrt(given), (classes, given)), net.rng.normal(0.0, 0.1, classes)
    if statistics is None:
        net.outputs.append(helper.make_tensor_value_info("pool", TensorProto.FLOAT, ["N", given, 1, 1]))
    else:  # what all images have in common would decide the class
        bias -= weight @ statistics["pool"].mean(axis=(0, 2, 3))
    head = [net.constant("head.weight", weight), net.constant("head.bias", bias)]
    net.node("Gemm", "logits", [x, *head], transB=1)
    net.outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes]))
    return net


def _run(model: onnx.ModelProto, feed: NDArray) -> dict[str, NDArray]:
    """Every output by name. One thread: sums of another order would give other bits."""
    import onnxq

    session = onnxq.session(model, threads=1, optimize="none")
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": feed}), strict=True))
