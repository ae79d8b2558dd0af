"""Layers of known networks as models of one operator: onnxq's, onnxruntime's, and Q/DQ for OpenVINO.

Each model holds COPIES nodes that read the same input and have weights of their own: they share onnxruntime's cost for
a run, and weights come from memory, as in a network, instead of the first cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

COPIES = 4
X_ZERO_POINT, Y_ZERO_POINT = 117, 123
X_SPREAD = 64.0 / np.sqrt(3.0)  # standard deviation of the activations, which are uniform
FIXED_SHIFT = 32


@dataclass(frozen=True)
class Layer:
    """A convolution of a square image (size > 0) or a matrix product of `rows` × `depth` by `depth` × `channels`.

    net: the network. groups == depth is depthwise.
    """

    net: str
    depth: int
    channels: int
    size: int = 0
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    rows: int = 1

    def __str__(self) -> str:
        if not self.size:
            return f"{self.rows}×{self.depth}×{self.channels}"
        stride = f"/{self.stride}" if self.stride > 1 else ""
        kind = "dw " if self.groups > 1 else ""
        shape = f"{self.channels}" if self.groups > 1 else f"{self.depth}→{self.channels}"
        return f"{kind}{self.kernel}×{self.kernel}{stride} {shape} @{self.size}"

    @property
    def out_size(self) -> int:
        """Height and width of the output, padded to divide evenly."""
        return -(-self.size // self.stride)

    def macs(self, batch: int) -> int:
        """Multiply-accumulates of one node."""
        if not self.size:
            return self.rows * self.depth * self.channels * batch
        return batch * self.out_size**2 * self.channels * self.kernel**2 * self.depth // self.groups

    def bytes_moved(self, batch: int, bits: int) -> int:
        """Bytes of input, weights and output, each counted once."""
        weights = self.channels * self.kernel**2 * self.depth // self.groups * bits // 8
        if not self.size:
            return batch * self.rows * (self.depth + self.channels) + weights
        return batch * (self.size**2 * self.depth + self.out_size**2 * self.channels) + weights


def _convolutions(net: str, rows: Sequence[tuple[int, ...]]) -> list[Layer]:
    """Rows: image size, input channels, output channels, kernel, stride; output 0: depthwise."""
    return [Layer(net, c, m or c, size, k, s, groups=1 if m else c) for size, c, m, k, s in rows]


RESNET18 = _convolutions(
    "resnet18",
    [
        (224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 128, 3, 2), (28, 128, 128, 3, 1), (56, 64, 128, 1, 2),
        (28, 128, 256, 3, 2), (14, 256, 256, 3, 1), (28, 128, 256, 1, 2), (14, 256, 512, 3, 2), (7, 512, 512, 3, 1),
        (14, 256, 512, 1, 2),
    ],
)  # fmt: skip
RESNET50 = _convolutions(
    "resnet50",
    [
        (224, 3, 64, 7, 2), (56, 64, 64, 1, 1), (56, 64, 64, 3, 1), (56, 64, 256, 1, 1), (56, 256, 64, 1, 1),
        (56, 256, 128, 1, 1), (56, 128, 128, 3, 2), (28, 128, 512, 1, 1), (56, 256, 512, 1, 2), (28, 512, 128, 1, 1),
        (28, 128, 128, 3, 1), (28, 512, 256, 1, 1), (28, 256, 256, 3, 2), (14, 256, 1024, 1, 1), (28, 512, 1024, 1, 2),
        (14, 1024, 256, 1, 1), (14, 256, 256, 3, 1), (14, 1024, 512, 1, 1), (14, 512, 512, 3, 2), (7, 512, 2048, 1, 1),
        (14, 1024, 2048, 1, 2), (7, 2048, 512, 1, 1), (7, 512, 512, 3, 1),
    ],
)  # fmt: skip
MOBILENETV2 = _convolutions(
    "mobilenetv2",
    [
        (224, 3, 32, 3, 2), (112, 32, 0, 3, 1), (112, 32, 16, 1, 1), (112, 16, 96, 1, 1), (112, 96, 0, 3, 2),
        (56, 96, 24, 1, 1), (56, 24, 144, 1, 1), (56, 144, 0, 3, 1), (56, 144, 24, 1, 1), (56, 144, 0, 3, 2),
        (28, 144, 32, 1, 1), (28, 32, 192, 1, 1), (28, 192, 0, 3, 1), (28, 192, 32, 1, 1), (28, 192, 0, 3, 2),
        (14, 192, 64, 1, 1), (14, 64, 384, 1, 1), (14, 384, 0, 3, 1), (14, 384, 64, 1, 1), (14, 384, 96, 1, 1),
        (14, 96, 576, 1, 1), (14, 576, 0, 3, 1), (14, 576, 96, 1, 1), (14, 576, 0, 3, 2), (7, 576, 160, 1, 1),
        (7, 160, 960, 1, 1), (7, 960, 0, 3, 1), (7, 960, 160, 1, 1), (7, 960, 320, 1, 1), (7, 320, 1280, 1, 1),
    ],
)  # fmt: skip
BERT = [Layer("bert", k, n, rows=128) for k, n in ((768, 768), (768, 3072), (3072, 768))]
GEMV = [Layer("gemv", k, n) for k, n in ((768, 768), (1280, 1000), (2048, 1000), (4096, 4096), (4096, 11008))]
LAYERS = {"resnet18": RESNET18, "resnet50": RESNET50, "mobilenetv2": MOBILENETV2, "bert": BERT, "gemv": GEMV}


@dataclass(frozen=True)
class _Values:
    """Operands of a layer, the same for every runtime. weights: int8, [M, k, k, C/g] or [M, K]."""

    x: NDArray[np.uint8]
    weights: list[NDArray[np.int8]]
    bias: list[NDArray[np.int32]]
    ratio: NDArray[np.float64]  # scale_x · scale_w / scale_y, per channel


def values(layer: Layer, batch: int, bits: int, seed: int = 0) -> _Values:
    """Uniform activations and weights; outputs use the whole range of their eight bits."""
    rng = np.random.default_rng(seed)
    limit = (1 << (bits - 1)) - 1
    kernel = (layer.kernel, layer.kernel) if layer.size else ()
    shape = (layer.channels, *kernel, layer.depth // layer.groups)
    x = (batch, layer.size, layer.size, layer.depth) if layer.size else (batch * layer.rows, layer.depth)
    spread = X_SPREAD * (limit / np.sqrt(3.0)) * np.sqrt(np.prod(shape[1:]))
    return _Values(
        rng.integers(X_ZERO_POINT - 64, X_ZERO_POINT + 65, x).astype(np.uint8),
        [rng.integers(-limit, limit + 1, shape).astype(np.int8) for _ in range(COPIES)],
        [rng.integers(-int(spread), int(spread) + 1, layer.channels).astype(np.int32) for _ in range(COPIES)],
        rng.uniform(0.8, 1.2, layer.channels) * 40.0 / spread,
    )


def feed(layer: Layer, v: _Values, channels_first: bool = False) -> dict[str, NDArray]:
    """The feed of the input `x`."""
    return {"x": np.ascontiguousarray(v.x.transpose(0, 3, 1, 2)) if layer.size and channels_first else v.x}


def ours(layer: Layer, v: _Values, bits: int) -> onnx.ModelProto:
    """Nodes of com.onnxq; 4-bit weights are stored as INT4."""
    common: dict[str, Any] = {"x_zero_point": X_ZERO_POINT, "y_zero_point": Y_ZERO_POINT, "qmin": 0, "qmax": 255}
    common["y_type"] = TensorProto.UINT8
    if layer.size:
        common |= {"strides": [layer.stride] * 2, "pads": _pads(layer), "group": layer.groups}
    multiplier = np.round(v.ratio * 2.0**FIXED_SHIFT).astype(np.int32)
    shared: dict[str, NDArray] = {
        "multiplier": multiplier,
        "shift": np.array([FIXED_SHIFT], np.int32),
        "w_zero": np.zeros(1, np.int8),
    }
    nodes, constants = [], [numpy_helper.from_array(a, name) for name, a in shared.items()]
    for i, (weights, bias) in enumerate(zip(v.weights, v.bias, strict=True)):
        stored = weights if layer.size else np.ascontiguousarray(weights.T)
        if bits == 4:
            stored = stored.astype(ml_dtypes.int4)
        constants += [numpy_helper.from_array(stored, f"w{i}"), numpy_helper.from_array(bias, f"bias{i}")]
        inputs = ["x", f"w{i}", f"bias{i}", *shared]
        op = "Conv" if layer.size else "Gemm"
        nodes.append(helper.make_node(op, inputs, [f"y{i}"], f"{op}{i}", domain="com.onnxq", **common))
    return _model(nodes, constants, v.x.shape, {"com.onnxq": 1})


def onnxruntimes(layer: Layer, v: _Values) -> onnx.ModelProto:
    """What onnxruntime's optimizer makes of Q/DQ: QLinearConv on channels-last tensors, QLinearMatMul."""
    constants = _scales(v)
    nodes = []
    for i, (weights, bias) in enumerate(zip(v.weights, v.bias, strict=True)):
        stored = weights.transpose(0, 3, 1, 2) if layer.size else weights.T
        constants.append(numpy_helper.from_array(np.ascontiguousarray(stored), f"w{i}"))
        inputs = ["x", "x_scale", "x_zero", f"w{i}", "w_scale", "w_zero", "y_scale", "y_zero"]
        if layer.size:
            constants.append(numpy_helper.from_array(bias, f"bias{i}"))
            attributes = _conv_attributes(layer) | {"channels_last": 1}
            node = helper.make_node(
                "QLinearConv", [*inputs, f"bias{i}"], [f"y{i}"], f"n{i}", domain="com.microsoft", **attributes
            )
        else:
            node = helper.make_node("QLinearMatMul", inputs, [f"y{i}"], f"n{i}")
        nodes.append(node)
    return _model(nodes, constants, v.x.shape, {"com.microsoft": 1} if layer.size else {})


def integer_products(v: _Values) -> onnx.ModelProto:
    """MatMulInteger: only the product, in int32."""
    constants = [numpy_helper.from_array(np.array(X_ZERO_POINT, np.uint8), "x_zero")]
    constants += [numpy_helper.from_array(np.ascontiguousarray(w.T), f"w{i}") for i, w in enumerate(v.weights)]
    nodes = [helper.make_node("MatMulInteger", ["x", f"w{i}", "x_zero"], [f"y{i}"], f"n{i}") for i in range(COPIES)]
    return _model(nodes, constants, v.x.shape, {}, TensorProto.INT32)


def qdq(layer: Layer, v: _Values) -> onnx.ModelProto:
    """Q/DQ around a standard operator on integer inputs and outputs, channels-first, as OpenVINO compiles it."""
    constants = _scales(v)
    nodes = [helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["xf"], "dx")]
    for i, (weights, bias) in enumerate(zip(v.weights, v.bias, strict=True)):
        stored = weights.transpose(0, 3, 1, 2) if layer.size else weights
        constants += [
            numpy_helper.from_array(np.ascontiguousarray(stored), f"w{i}"),
            numpy_helper.from_array((bias * v.ratio).astype(np.float32), f"bias{i}"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", [f"w{i}", "w_scale", "w_zero"], [f"wf{i}"], f"dw{i}", axis=0))
        if layer.size:
            nodes.append(_standard("Conv", i, **_conv_attributes(layer)))
        else:
            nodes.append(_standard("Gemm", i, transB=1))
        nodes.append(helper.make_node("QuantizeLinear", [f"yf{i}", "y_scale", "y_zero"], [f"y{i}"], f"q{i}"))
    shape = v.x.shape if not layer.size else (v.x.shape[0], v.x.shape[3], *v.x.shape[1:3])
    return _model(nodes, constants, shape, {})


def _standard(op: str, i: int, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, ["xf", f"wf{i}", f"bias{i}"], [f"yf{i}"], f"n{i}", **attributes)


def _scales(v: _Values) -> list[TensorProto]:
    """Scales whose ratio is that of the layer: s_x = s_y = 1, s_w = ratio."""
    arrays: dict[str, Any] = {
        "x_scale": np.float32(1.0), "x_zero": np.uint8(X_ZERO_POINT), "w_scale": v.ratio.astype(np.float32),
        "w_zero": np.zeros(len(v.ratio), np.int8), "y_scale": np.float32(1.0), "y_zero": np.uint8(Y_ZERO_POINT),
    }  # fmt: skip
    return [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]


def _conv_attributes(layer: Layer) -> dict[str, Any]:
    kernel, stride = [layer.kernel] * 2, [layer.stride] * 2
    return {"kernel_shape": kernel, "strides": stride, "pads": _pads(layer), "group": layer.groups}


def _pads(layer: Layer) -> list[int]:
    return [layer.kernel // 2] * 4


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[TensorProto],
    shape: Sequence[int],
    domains: dict[str, int],
    out: int = TensorProto.UINT8,
) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info(f"y{i}", out, None) for i in range(COPIES)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, list(shape))]
    graph = helper.make_graph(list(nodes), "kernel", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, v) for d, v in domains.items())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
