"""Train the bundled demo model and write `onnxq/demo/digits_cnn.onnx` and `onnxq/demo/digits.npz` again.

Needs what onnxq itself does not: `pip install torch==2.13.0 scikit-learn onnx onnxruntime` in an environment of its
own. It takes about half a minute on one thread. Seeded: the same machine and versions give the same bytes; another CPU
or another torch may end at slightly different weights.

    python tools/generators/train_demo.py [--out onnxq/demo]

The network is small but has what a quantizer must handle: convolutions with unfolded BatchNormalization, a residual
block, a downsampling residual block with a 1x1 convolution on its shortcut, an inverted residual block (depthwise,
ReLU6 as Clip, linear output) and a concatenation of two convolutions and a pooling. It is written with onnx.helper
instead of torch.onnx.export so that nodes and tensors have names that people can read.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 2
TRAINING, CALIBRATION, VALIDATION = 1297, 512, 500
# No weight decay, small batches: regularized harder, the network is so robust on this small task that 4-bit weights
# cost nothing and the demo would show nothing. Seeds 1 to 3 gave 98.6, 99.0 and 99.2 % on the validation images.
EPOCHS, BATCH, LEARNING_RATE, LABEL_SMOOTHING = 60, 32, 2e-3, 0.2
OPSET, IR_VERSION = 17, 8
ONNX_TOLERANCE = 1e-5

DOC = """Demo model of onnxq: classifies 8x8 images of handwritten digits.
Input `image`: float32, N x 1 x 8 x 8, the data set's grey values 0..16 divided by 16. Output `logits`: N x 10."""
DATASET = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49"
)


class ConvBN(nn.Module):
    """Convolution without bias, BatchNormalization, then `activation`: "relu", "relu6" or "" (linear)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, activation: str = "relu"):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[N, cin, H, W] to [N, cout, H / stride, W / stride]."""
        x = self.bn(self.conv(x))
        if self.activation == "relu":
            return functional.relu(x)
        return functional.relu6(x) if self.activation == "relu6" else x


class DigitsCNN(nn.Module):
    """The demo network; `write_onnx` spells out the same graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(1, 16, 3)
        self.block1_conv1 = ConvBN(16, 16, 3)
        self.block1_conv2 = ConvBN(16, 16, 3, activation="")
        self.block2_conv1 = ConvBN(16, 32, 3, stride=2)
        self.block2_conv2 = ConvBN(32, 32, 3, activation="")
        self.block2_shortcut = ConvBN(16, 32, 1, stride=2, activation="")
        self.block3_expand = ConvBN(32, 96, 1, activation="relu6")
        self.block3_depthwise = ConvBN(96, 96, 3, groups=96, activation="relu6")
        self.block3_project = ConvBN(96, 32, 1, activation="")
        self.block4_point = ConvBN(32, 24, 1)
        self.block4_wide = ConvBN(32, 24, 3)
        self.head = nn.Linear(80, 10)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 1, 8, 8] grey values 0..1 to [N, 10] logits."""
        x = self.stem(image)
        x = functional.relu(self.block1_conv2(self.block1_conv1(x)) + x)
        x = functional.relu(self.block2_conv2(self.block2_conv1(x)) + self.block2_shortcut(x))
        x = self.block3_project(self.block3_depthwise(self.block3_expand(x))) + x
        x = torch.cat([self.block4_point(x), self.block4_wide(x), functional.max_pool2d(x, 3, 1, 1)], 1)
        return self.head(x.mean((2, 3)))


class GraphWriter:
    """Collects nodes and initializers; every method appends one node and returns the name of its output."""

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


def write_onnx(net: DigitsCNN, path: Path, accuracy: float) -> None:
    """Write the network with its BatchNormalization nodes; checked in full before it replaces `path`."""
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
    metadata = {
        "dataset": DATASET,
        "dataset_licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        "dataset_copy": "scikit-learn load_digits (the data set's test part, 1797 images)",
        "preprocessing": "image = grey value (0..16) / 16",
        "classes": "0 1 2 3 4 5 6 7 8 9",
        "training": f"{TRAINING} images, seed {SEED}, {EPOCHS} epochs",
        "validation_accuracy": f"{accuracy:.4f} ({VALIDATION} images, onnxq/demo/digits.npz)",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    replace_file(path, model.SerializeToString(deterministic=True))


def replace_file(path: Path, content: bytes) -> None:
    """Write beside `path`, then move over it, so that no half-written file is left."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def split_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.intp], NDArray[np.intp]]:
    """The 1797 digits as uint8 [1797, 1, 8, 8] in 0..16, their labels, and the indices of training and validation.

    Validation is the set's last 500 images, not a random draw: neighbours in the set are mostly by the same writer, so
    a shuffled split would test on writers seen in training. The training indices are shuffled, so that any leading part
    is a fair sample for calibration.
    """
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    training = np.random.default_rng(SEED).permutation(TRAINING)
    return images, labels, training, np.arange(TRAINING, TRAINING + VALIDATION)


def write_data(path: Path) -> None:
    """Write the calibration part of the training images and the validation images, both as uint8 0..16."""
    images, labels, training, validation = split_digits()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        calibration_image=images[training[:CALIBRATION]],
        calibration_labels=labels[training[:CALIBRATION]],
        validation_image=images[validation],
        validation_labels=labels[validation],
    )
    replace_file(path, buffer.getvalue())


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 10 % and shift by up to one pixel, each image on its own."""
    n = len(images)
    angle, zoom, dx, dy = (torch.rand(4, n, generator=generator) * 2 - 1).unbind()
    angle, zoom = angle * math.radians(12), 1 + 0.1 * zoom
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([torch.stack([cos, -sin, dx / 4], 1), torch.stack([sin, cos, dy / 4], 1)], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train() -> DigitsCNN:
    """Train for a fixed number of epochs; the validation images play no part in it."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels, training, _ = split_digits()
    x = torch.from_numpy(images[training].astype(np.float32) / 16)
    y = torch.from_numpy(labels[training].astype(np.int64))
    net = DigitsCNN()
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for epoch in range(EPOCHS):
        net.train()
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            logits = net(augment(x[batch], generator))
            loss = functional.cross_entropy(logits, y[batch], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  training loss {total / len(x):.4f}", flush=True)
    return net.eval()


def main() -> None:
    """Train, write both files, and prove that the ONNX file computes what torch does."""
    parser = argparse.ArgumentParser(description="Train the demo model of onnxq and write its files.")
    default = Path(__file__).resolve().parents[2] / "onnxq" / "demo"
    parser.add_argument("--out", type=Path, default=default, help="folder for digits_cnn.onnx and digits.npz")
    out = parser.parse_args().out
    started = time.perf_counter()
    net = train()

    images, labels, _, validation = split_digits()
    feed = images[validation].astype(np.float32) / 16
    with torch.no_grad():
        expected = net(torch.from_numpy(feed)).numpy()
    accuracy = float((expected.argmax(1) == labels[validation]).mean())
    model, data = out / "digits_cnn.onnx", out / "digits.npz"
    write_onnx(net, model, accuracy)
    write_data(data)

    (logits,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": feed})
    difference = float(np.abs(logits - expected).max())
    if difference > ONNX_TOLERANCE:
        raise SystemExit(f"onnxruntime differs from torch by {difference:.1e}, more than {ONNX_TOLERANCE:.0e}")
    print(f"parameters {sum(p.numel() for p in net.parameters())}, {time.perf_counter() - started:.0f} s")
    print(f"validation accuracy {100 * accuracy:.2f} % of {VALIDATION}, onnxruntime - torch at most {difference:.1e}")
    for path in (model, data):
        print(f"{path.name}: {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
