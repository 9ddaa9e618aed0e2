"""A small residual network for handwritten digits, large enough that its blocks take longer than the overhead of a
call.
"""

from __future__ import annotations

import torch
from torch import nn

from compress.builtin.network import Builtin


def conv_norm(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution without bias, and a batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions with an identity shortcut around them; input and output are (batch, channels, height, width)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels)
        self.second = conv_norm(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class DigitsCnn(nn.Module):
    """The network, which maps (batch, 1, 32, 32) to (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(1, 32)
        self.down1 = conv_norm(32, 80, stride=2)
        self.block1 = Block(80)
        self.down2 = conv_norm(80, 160, stride=2)
        self.block2 = Block(160)
        self.head = nn.Linear(160, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(images))
        x = self.block1(torch.relu(self.down1(x)))
        x = self.block2(torch.relu(self.down2(x)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


NETWORKS = (
    Builtin(
        name="digits_cnn",
        summary="seven convolutions with two residual adds, for digits of 32x32",
        source="ours",
        input_shape=(1, 32, 32),
        classes=10,
        build=DigitsCnn,
    ),
)
