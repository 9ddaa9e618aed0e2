"""VGG-16 for CIFAR with batch norm: thirteen convolutions and one linear layer, in the form of the pruning papers.

Configuration D of Simonyan and Zisserman 2015, arXiv:1409.1556, with the head for small images of Li et al. 2017,
arXiv:1608.08710.
"""

from __future__ import annotations

import torch
from torch import nn

from compress.builtin.network import Builtin

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16(nn.Module):
    """The network, which maps (batch, 3, 32, 32) to (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in STAGES:
            for outputs in stage:
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(torch.flatten(self.features(images), 1))
        return logits


NETWORKS = (
    Builtin(
        name="vgg16",
        summary="thirteen convolutions with batch norm, a hidden linear layer of 512, for images of 32x32",
        source="Simonyan and Zisserman 2015, arXiv:1409.1556, D; head of Li et al. 2017, arXiv:1608.08710",
        input_shape=(3, 32, 32),
        classes=10,
        build=Vgg16,
    ),
)
