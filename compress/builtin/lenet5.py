"""LeNet-5 in the form that the pruning papers use: 20-50-500-10 on 28x28 (Caffe's `lenet_train_test.prototxt`)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from compress.builtin.network import Builtin


class LeNet5(nn.Module):
    """The network, which maps (batch, 1, 28, 28) to (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.linear1 = nn.Linear(50 * 4 * 4, 500)
        self.linear2 = nn.Linear(500, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # As in the prototxt, there is no activation between a convolution and its pooling.
        x = functional.max_pool2d(self.conv1(images), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        x = torch.relu(self.linear1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.linear2(x)
        return logits


NETWORKS = (
    Builtin(
        name="lenet5",
        summary="two convolutions and two linear layers, 431 k parameters, for digits of 28x28",
        source="LeCun et al. 1998, doi:10.1109/5.726791, in Caffe's form",
        input_shape=(1, 28, 28),
        classes=10,
        build=LeNet5,
    ),
)
