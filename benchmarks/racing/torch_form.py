"""LayeredModule: a Network with its layers as torch's own layers, which Torch-Pruning can trace and cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.edit import edited
from compress.graph.module import TorchNetwork
from compress.network import Array, Network, Node

_NORM = ("weight", "bias", "running_mean", "running_var")
_LAYER = ("weight", "bias")


class LayeredModule(nn.Module):
    """A torch module that computes what the network computes; `to_network` turns it back after its layers were cut.

    Layers are `nn.Conv2d`, `nn.BatchNorm2d` and `nn.Linear`; a Reshape to two axes flattens, and its width is
    free; all other nodes are run as `TorchNetwork` runs them.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self._rest = (
            TorchNetwork(network).eval(),
        )  # in a tuple, so that its weights are not parameters of this module
        self.layers = nn.ModuleList()
        self._index: dict[str, int] = {}
        for node in network.nodes:
            if node.op_type in _MAKERS:
                self._index[node.name] = len(self.layers)
                self.layers.append(_MAKERS[node.op_type](node, network))

    def layer(self, node: str) -> nn.Module:
        """Return the layer of this node."""
        return self.layers[self._index[node]]

    @property
    def head(self) -> nn.Module:
        """The layer that produces the scored output, whose width is the number of classes."""
        node = self.network.producer(self.network.output_name)
        assert node is not None
        return self.layer(node.name)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        known = {self.network.input_name: images}
        for node in self.network.nodes:
            known[node.outputs[0]] = self._made(node, known)
        return known[self.network.output_name]

    def _made(self, node: Node, known: Mapping[str, Tensor]) -> Tensor:
        if node.name in self._index:
            made: Tensor = self.layer(node.name)(known[node.inputs[0]])
            return made
        if _flattens(node, self.network):
            return known[node.inputs[0]].flatten(1)
        data = {name: known[name] for name in node.inputs if name in known}
        return self._rest[0].made(node.name, data)[node.outputs[0]]

    def to_network(self) -> Network:
        """Return the network with the layers' weights, which may be narrower than before."""
        made: dict[str, Array] = {}
        for node in self.network.nodes:
            if node.name in self._index:
                made |= _weights(node, self.layer(node.name), self.network)
            elif node.op_type == "Reshape" and _flattens(node, self.network):
                made[node.inputs[1]] = np.array([0, -1], np.int64)
        return edited(self.network, self.network.nodes, {**self.network.constants, **made})


def _conv(node: Node, network: Network) -> nn.Module:
    weight = network.constants[node.inputs[1]]
    top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right) or node.get("group", 1) != 1:
        raise SystemExit(f"{node.name}: only convolutions of one group with symmetric padding are supported")
    layer = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        weight.shape[2:],
        node.get("strides", (1, 1)),
        (top, left),
        node.get("dilations", (1, 1)),
        bias=bool(node.input(2)),
    )
    return _filled(layer, node, network, _LAYER)


def _norm(node: Node, network: Network) -> nn.Module:
    layer = nn.BatchNorm2d(len(network.constants[node.inputs[1]]), eps=node.get("epsilon", 1e-5))
    return _filled(layer, node, network, _NORM)


def _linear(node: Node, network: Network) -> nn.Module:
    if not node.get("transB", 0):
        raise SystemExit(f"{node.name}: only a Gemm with transB = 1 is supported")
    width, inputs = network.constants[node.inputs[1]].shape
    return _filled(nn.Linear(inputs, width, bias=bool(node.input(2))), node, network, _LAYER)


_MAKERS: Mapping[str, Callable[[Node, Network], nn.Module]] = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Gemm": _linear,
}


def _filled(layer: nn.Module, node: Node, network: Network, names: tuple[str, ...]) -> nn.Module:
    with torch.no_grad():
        for name, constant in zip(names, node.inputs[1:], strict=False):
            getattr(layer, name).copy_(torch.from_numpy(np.array(network.constants[constant])))
    return layer


def _weights(node: Node, layer: nn.Module, network: Network) -> dict[str, Array]:
    names = _NORM if isinstance(layer, nn.BatchNorm2d) else _LAYER
    held = {constant: getattr(layer, name) for name, constant in zip(names, node.inputs[1:], strict=False)}
    return {
        constant: tensor.detach().numpy().astype(network.constants[constant].dtype).copy()
        for constant, tensor in held.items()
    }


def _flattens(node: Node, network: Network) -> bool:
    return node.op_type in ("Reshape", "Flatten") and len(network.shape(node.outputs[0])) == 2
