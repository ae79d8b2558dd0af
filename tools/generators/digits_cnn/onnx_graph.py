"""The demo network as ONNX, by onnx.helper instead of torch.onnx.export: nodes and tensors get readable names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from digits_cnn.network import ConvBN, DigitsCNN

OPSET, IR_VERSION = 17, 8

DOC = """Demo model of onnxq: classifies 8x8 images of handwritten digits.
Input `image`: float32, N x 1 x 8 x 8, the data set's grey values 0..16 divided by 16. Output `logits`: N x 10."""


class GraphWriter:
    """Collects nodes and initializers; every method returns the name of the tensor that it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, name: str, values: NDArray[np.float32]) -> str:
        """Add an initializer."""
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        output = output or f"{name}_out"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def parameter(self, name: str, values: Tensor) -> str:
        """Add an initializer from a torch parameter or buffer."""
        return self.constant(name, values.detach().numpy())

    def conv_bn(self, template: str, module: ConvBN, x: str) -> str:
        """Conv, BatchNormalization and the activation; `template` names them ("block1/{}1": "block1/conv1", …)."""
        conv, bn = template.format("conv"), template.format("bn")
        kernel, stride, pad = module.conv.kernel_size[0], module.conv.stride[0], module.conv.kernel_size[0] // 2
        weight = self.parameter(f"{conv}.weight", module.conv.weight)
        x = self.node(
            "Conv", conv, x, weight,
            group=module.conv.groups, kernel_shape=[kernel] * 2, pads=[pad] * 4, strides=[stride] * 2,
        )  # fmt: skip
        norm = module.bn
        parameters = {
            "scale": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "var": norm.running_var
        }  # fmt: skip
        names = [self.parameter(f"{bn}.{key}", value) for key, value in parameters.items()]
        x = self.node("BatchNormalization", bn, x, *names, epsilon=norm.eps)
        if module.activation == "relu":
            return self.node("Relu", template.format("relu"), x)
        return self.node("Clip", template.format("clip"), x, "zero", "six") if module.activation == "relu6" else x


def to_onnx(net: DigitsCNN, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The network with its BatchNormalization nodes, checked in full."""
    g = GraphWriter()
    g.constant("zero", np.array(0, np.float32))
    g.constant("six", np.array(6, np.float32))

    x = g.conv_bn("stem/{}", net.stem, "image")
    y = g.conv_bn("block1/{}2", net.block1_conv2, g.conv_bn("block1/{}1", net.block1_conv1, x))
    x = g.node("Relu", "block1/relu2", g.node("Add", "block1/add", y, x))

    y = g.conv_bn("block2/{}2", net.block2_conv2, g.conv_bn("block2/{}1", net.block2_conv1, x))
    x = g.node("Add", "block2/add", y, g.conv_bn("block2/shortcut_{}", net.block2_shortcut, x))
    x = g.node("Relu", "block2/relu2", x)

    y = g.conv_bn("block3/depthwise_{}", net.block3_depthwise, g.conv_bn("block3/expand_{}", net.block3_expand, x))
    x = g.node("Add", "block3/add", g.conv_bn("block3/project_{}", net.block3_project, y), x)

    point = g.conv_bn("block4/point_{}", net.block4_point, x)
    wide = g.conv_bn("block4/wide_{}", net.block4_wide, x)
    pool = g.node("MaxPool", "block4/pool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    x = g.node("Concat", "block4/concat", point, wide, pool, axis=1)

    x = g.node("Flatten", "head/flatten", g.node("GlobalAveragePool", "head/pool", x), axis=1)
    weight, bias = g.parameter("head/gemm.weight", net.head.weight), g.parameter("head/gemm.bias", net.head.bias)
    g.node("Gemm", "head/gemm", x, weight, bias, output="logits", transB=1)

    graph = helper.make_graph(
        g.nodes,
        "digits_cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        g.initializers,
        doc_string=DOC,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxq tools/generators/train_demo.py",
        doc_string=DOC,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model
