"""The demo network in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    """The demo network; `onnx_graph.to_onnx` writes the same graph."""

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
