"""BatchNormalization: running statistics in eval mode, batch statistics in train mode."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Mode, Row, TorchOp, same


def _build(node: Node, network: Network) -> TorchOp:
    if node.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise Unsupported("BatchNormalization in training mode: export the network in eval mode")
    epsilon = float(node.get("epsilon", 1e-5))

    def run(mode: Mode, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, mode.training, mode.momentum, epsilon)

    return run


def _flow(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    width = network.shape(x)[1]
    links = [same((x, 1), (y, 1), width)]
    links += [same((x, 1), (name, 0), width) for name in node.inputs[1:] if name in network.constants]
    if len(links) != 5:
        raise Unsupported("BatchNormalization with computed statistics")
    return Flow({y: 1}, tuple(links))


ROWS = (Row(("BatchNormalization",), _build, _flow, trained=(1, 2), running=(3, 4), moded=True),)
