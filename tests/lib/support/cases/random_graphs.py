"""Random convolutional networks: what nobody would draw, but what must go through all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 12
OPSETS = (13, 15, 17, 18, 20)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: name and C×H×W."""

    name: str
    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass
class Builder:
    """Grows a graph node by node, each reading tensors that are there already."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        name = self.name("k")
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> NDArray[np.float64]:
        return self.rng.normal(0, scale, shape)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = self.name("t")
        self.nodes.append(helper.make_node(op, list(inputs), [output], self.name(f"{op}_"), **attributes))
        return output

    def conv(self, x: Value) -> Value:
        size = int(self.rng.choice([1, 3]))
        depthwise = self.rng.random() < 0.3
        groups = x.channels if depthwise else 1
        out = x.channels * int(self.rng.choice([1, 2])) if depthwise else int(self.rng.choice([4, 6, 8]))
        stride = 2 if self.rng.random() < 0.2 and min(x.size) >= 6 else 1
        fan = x.channels // groups * size * size
        inputs = [self.constant(self.normal(out, x.channels // groups, size, size, scale=np.sqrt(2 / fan)))]
        if self.rng.random() < 0.7:
            inputs.append(self.constant(self.normal(out, scale=0.2)))
        attributes = {"group": groups, "pads": [size // 2] * 4, "strides": [stride, stride]}
        height, width = ((n - 1) // stride + 1 for n in x.size)
        return Value(self.node("Conv", x.name, *inputs, **attributes), out, height, width)

    def transposed(self, x: Value) -> Value | None:
        if max(x.size) > SIDE:
            return None
        weight = self.constant(self.normal(x.channels, 4, 2, 2, scale=np.sqrt(2 / x.channels)))
        return Value(self.node("ConvTranspose", x.name, weight, strides=[2, 2]), 4, 2 * x.height, 2 * x.width)

    def excite(self, x: Value) -> Value:
        """Squeeze and excite."""
        pooled = Value(self.node("GlobalAveragePool", x.name), x.channels, 1, 1)
        inner = self.conv(pooled)
        weight = self.constant(self.normal(x.channels, inner.channels, 1, 1, scale=0.5))
        gate = self.node("Sigmoid", self.node("Conv", self.node("Relu", inner.name), weight))
        return Value(self.node("Mul", x.name, gate), *x.shape)

    def norm(self, x: Value) -> Value:
        n = x.channels
        values = (self.rng.uniform(0.5, 1.5, n), self.normal(n, scale=0.2), self.normal(n, scale=0.2))
        inputs = [self.constant(v) for v in (*values, self.rng.uniform(0.5, 1.5, n))]
        return Value(self.node("BatchNormalization", x.name, *inputs), *x.shape)

    def same(self, x: Value, op: str, *inputs: str, **attributes: Any) -> Value:
        """A node whose output has the shape of its input."""
        return Value(self.node(op, x.name, *inputs, **attributes), *x.shape)

    def pool(self, x: Value) -> Value | None:
        if min(x.size) < 4:
            return None
        name = self.node("MaxPool", x.name, kernel_shape=[2, 2], strides=[2, 2])
        return Value(name, x.channels, x.height // 2, x.width // 2)

    def enlarge(self, x: Value) -> Value | None:
        if max(x.size) > SIDE:
            return None
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        name = self.node("Resize", x.name, "", self.constant([1, 1, 2, 2]), **how)
        return Value(name, x.channels, 2 * x.height, 2 * x.width)

    def halve(self, x: Value) -> Value | None:
        if x.channels < 2:
            return None
        bounds = (self.constant([v], np.int64) for v in (0, x.channels // 2, 1))
        return Value(self.node("Slice", x.name, *bounds), x.channels // 2, *x.size)

    def join(self, x: Value, other: Value) -> Value | None:
        if x.size != other.size or x.channels + other.channels > 32:
            return None
        return Value(self.node("Concat", x.name, other.name, axis=1), x.channels + other.channels, *x.size)

    def combine(self, x: Value, other: Value, op: str) -> Value | None:
        if x.shape != other.shape or (op == "Sub" and x is other):  # x - x: nothing lives behind it
            return None
        return self.same(x, op, other.name)

    def step(self, live: list[Value]) -> Value | None:
        """One more node, or a few; None where the shapes do not allow what was drawn."""
        rng = self.rng
        x = live[-1] if rng.random() < 0.6 else live[int(rng.integers(len(live)))]
        other = live[int(rng.integers(len(live)))]
        choices: list[Callable[[], Value | None]] = [
            *[lambda: self.conv(x)] * 6,
            lambda: self.same(x, "Relu"),
            lambda: self.same(x, "Clip", self.constant(0.0), self.constant(6.0)),
            lambda: self.same(x, "Clip", self.constant(-1.0), self.constant(1.5)),
            lambda: self.same(x, "LeakyRelu", alpha=0.1),
            lambda: self.same(x, "Sigmoid"),
            lambda: self.same(x, "Tanh"),
            lambda: self.same(x, "Identity"),
            lambda: self.same(x, "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            lambda: self.same(x, "Mul", self.constant(rng.uniform(0.5, 2, (x.channels, 1, 1)))),
            lambda: self.same(x, "Add", self.constant(self.normal(1, x.channels, 1, 1))),
            lambda: self.norm(x),
            lambda: self.pool(x),
            lambda: self.enlarge(x),
            lambda: self.transposed(x),
            lambda: self.halve(x),
            lambda: self.excite(x),
            *[lambda: self.combine(x, other, "Add")] * 2,
            lambda: self.combine(x, x, "Add"),
            lambda: self.combine(x, other, "Mul"),
            lambda: self.combine(x, other, "Sub"),
            *[lambda: self.join(x, other)] * 2,
        ]
        return choices[int(rng.integers(len(choices)))]()


def network(seed: int) -> onnx.ModelProto:
    """A network of 4 to 14 steps on N×3×12×12, with one or two outputs and sometimes a classifier; equal for a seed."""
    build = Builder(np.random.default_rng(seed))
    live = [Value("x", 3, SIDE, SIDE)]
    for _ in range(int(build.rng.integers(4, 15))):
        made = build.step(live)
        if made is not None:
            live.append(made)
    live.append(build.conv(live[-1]))
    outputs = {live[-1].name: list(live[-1].shape)}
    if build.rng.random() < 0.3:
        second = live[int(build.rng.integers(1, len(live)))]
        outputs[second.name] = list(second.shape)
    if build.rng.random() < 0.5:
        del outputs[live[-1].name]
        flat = build.node("Flatten", build.node("GlobalAveragePool", live[-1].name))
        weight = build.constant(build.normal(5, live[-1].channels, scale=0.5))
        outputs[build.node("Gemm", flat, weight, build.constant(build.normal(5, scale=0.2)), transB=1)] = [5]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *shape]) for n, shape in outputs.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])]
    graph = helper.make_graph(build.nodes, f"network {seed}", inputs, infos, build.constants)
    opset = int(build.rng.choice(OPSETS))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds(seed: int, count: int = 4) -> list[dict[str, NDArray[np.float32]]]:
    """Inputs for `network(seed)`, two samples each."""
    return [
        {"x": np.random.default_rng([seed, i]).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)}
        for i in range(count)
    ]
