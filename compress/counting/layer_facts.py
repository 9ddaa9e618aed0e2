"""Facts about a layer, and about the layers around a block of channels; a learner may use them as features of a knob.

They are the part of the state of He et al., AMC, arXiv 1802.03494, that does not change during a search. The problem's
estimate and terms give the rest (the amounts removed and left).
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

        `index`: its place among the layers, from 0. `channels`: number of outputs; `input_channels`: number of inputs.
        `kernel`, `stride`: the first of each. `height`, `width`: size of its output, 1 if that is no image.
        `share_of_macs`: its share of the network's.
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
        """Return the facts of the first layer that produces the block's channels, with these changes.

        `channels`: the block's own. `share_of_macs`: share of all layers that produce or read the channels. `layers`,
        `readers`: how many layers produce and read them.
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
        """Share of each layer in the network's multiply-accumulates, in the order of execution."""
        counts = {node.name: count for node in self._network.nodes if (count := macs(node, self._network))}
        total = sum(counts.values())
        return {name: count / total for name, count in counts.items()}

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._shares)}
