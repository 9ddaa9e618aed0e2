"""ResNet-20, -32 and -56 for CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2), with the option-A shortcuts."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from compress.builtin.network import Builtin

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions. If the shape changes, the shortcut takes every second pixel and pads channels with zeros.

    The block maps (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            shortcut = x[..., :: self.stride, :: self.stride]
            x = functional.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return torch.relu(residual + x)


class ResNet(nn.Module):
    """The network, which maps (batch, 3, 32, 32) to (batch, 10) with 3 stages of (depth - 2) / 6 blocks."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        blocks = (depth - 2) // 6
        stages = []
        inputs = WIDTHS[0]
        for stage, outputs in enumerate(WIDTHS):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            for stride in strides:
                stages.append(Block(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.linear = nn.Linear(WIDTHS[-1], 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.bn1(self.conv1(images))))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


NETWORKS = tuple(
    Builtin(
        name=f"resnet{depth}",
        summary=f"{depth} layers in three stages of 16, 32 and 64 channels, for images of 32x32",
        source="He et al. 2016, arXiv:1512.03385, section 4.2, option A",
        input_shape=(3, 32, 32),
        classes=10,
        build=partial(ResNet, depth),
    )
    for depth in (20, 32, 56)
)
