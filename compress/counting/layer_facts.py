"""Facts about a layer, and about the layers around a block of channels; a learner may use them as features of a knob.

The facts are the part of the state in He et al., AMC, arXiv 1802.03494, that does not change during a search. The rest
of the state, the amounts removed and left, comes from the problem's estimate and terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from compress.counting.work import macs
from compress.graph.groups import Block
from compress.network import Network, Node
from search.space import Features


class LayerFacts:
    """Facts about the layers of one network, as numbers at batch 1."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def of(self, node: Node) -> Features:
        """Return the facts of one layer, a convolution or a matrix product with a constant.

        `index` is the layer's place among the layers, from 0. `channels` and `input_channels` are its numbers of output
        and input channels. `kernel` and `stride` are the sizes along the first spatial axis. `height` and `width` are
        the output's size, or 1 if the output is not an image. `share_of_macs` is the layer's share of the network's
        multiply-accumulates.
        """
        made, read = (self._network.shape(tensor) for tensor in (node.outputs[0], node.inputs[0]))
        taps = self._network.shape(node.inputs[1])[2:]
        channel = 1 if taps else -1
        height, width = (*(made[2:] if taps else ()), 1, 1)[:2]
        return {
            "index": float(self._places[node.name]),
            "channels": float(made[channel]),
            "input_channels": float(read[channel]),
            "kernel": float((*taps, 1)[0]),
            "stride": float((*node.get("strides", ()), 1)[0]),
            "height": float(height),
            "width": float(width),
            "share_of_macs": self._shares[node.name],
        }

    def of_block(self, block: Block) -> Features:
        """Return the facts of the first layer that produces the block's channels, with some facts of the whole block.

        `channels` is the block's number of channels. `share_of_macs` is the share of all layers that produce or read
        these channels. `layers` and `readers` are the numbers of layers that produce and read these channels.
        """
        weights = dict.fromkeys(tensor for tensor, _ in (*block.filters, *(slot for slot, _ in block.readers)))
        touched = {node.name for weight in weights for node in self._network.consumers(weight)}
        first = next(node for node in self._network.consumers(block.filters[0][0]) if node.name in self._places)
        return {
            **self.of(first),
            "channels": float(block.width),
            "layers": float(len(block.filters)),
            "readers": float(len(block.readers)),
            "share_of_macs": sum(self._shares.get(name, 0.0) for name in touched),
        }

    @cached_property
    def _shares(self) -> Mapping[str, float]:
        """Return each layer's share of the network's multiply-accumulates, in the order of execution."""
        counts = {node.name: count for node in self._network.nodes if (count := macs(node, self._network))}
        total = sum(counts.values())
        return {name: count / total for name, count in counts.items()}

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._shares)}
