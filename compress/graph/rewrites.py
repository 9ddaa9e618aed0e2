"""Lossless rewrites: the same function with fewer or faster kernels, used if timing shows a gain.

An option-A shortcut of a ResNet takes every second pixel (Slice, Slice) and pads channels with zeros (Pad). A strided
1x1 convolution with a 0/1 weight does the same in one kernel and lets the runtime stay in its blocked layout, with the
same outputs; the logs of benchmarks/resnet20_rest.py show its gain on ResNet-20.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.graph.edit import replaced
from compress.graph.names import Names
from compress.network import Array, Network, Node
from compress.ops.pad import pads_of
from compress.ops.select import ranges_of


@dataclass(frozen=True)
class _Chain:
    """Slices and a Pad that together subsample and embed channels."""

    nodes: tuple[Node, ...]
    source: str
    result: str
    strides: tuple[int, int]
    front: int
    back: int


def rewritten(network: Network) -> Network:
    """Return the network after all lossless rewrites that apply. `replaced` verifies each rewrite."""
    for chain in _shortcuts(network):
        network = replaced(network, [node.name for node in chain.nodes], *_convolution(network, chain))
    return network


def _shortcuts(network: Network) -> list[_Chain]:
    return [chain for node in network.nodes if node.op_type == "Pad" and (chain := _chain(network, node))]


def _chain(network: Network, pad: Node) -> _Chain | None:
    shape = network.shape(pad.input(0))
    if len(shape) != 4 or pad.get("mode", "constant") != "constant" or pad.input(1) not in network.constants:
        return None
    value = network.constants.get(pad.input(2)) if pad.input(2) else np.zeros(())
    pads = pads_of(pad, network)
    only_channels = all(size == 0 for axis, size in enumerate(pads) if axis % 4 != 1) and min(pads) >= 0
    if value is None or float(np.asarray(value).reshape(-1)[0]) != 0.0 or not only_channels:
        return None
    nodes, source, strides = _slices(network, pad)
    if strides == (1, 1):
        return None
    return _Chain((*nodes, pad), source, pad.outputs[0], strides, pads[1], pads[5])


def _slices(network: Network, pad: Node) -> tuple[tuple[Node, ...], str, tuple[int, int]]:
    """Return the Slices before the Pad that only take every n-th row or column, from the first one."""
    strides, source, nodes = [1, 1], pad.input(0), list[Node]()
    while (node := network.producer(source)) is not None and node.op_type == "Slice":
        if network.sole_consumer(source) is None or any(name not in network.constants for name in node.inputs[1:]):
            break
        shape = network.shape(node.input(0))
        ranges = ranges_of(node, network)
        if any(axis not in (2, 3) or start != 0 or end != shape[axis] or step < 1 for axis, start, end, step in ranges):
            break
        for axis, _, _, step in ranges:
            strides[axis - 2] *= step
        nodes.insert(0, node)
        source = node.input(0)
    return tuple(nodes), source, (strides[0], strides[1])


def _convolution(network: Network, chain: _Chain) -> tuple[list[Node], dict[str, Array]]:
    channels = network.shape(chain.source)[1]
    weight = np.zeros((chain.front + channels + chain.back, channels, 1, 1), dtype=np.float32)
    weight[chain.front + np.arange(channels), np.arange(channels)] = 1.0
    names = Names(network)
    name = names.new(f"{chain.nodes[-1].name}_select")
    own = names.new(f"{name}.weight")
    attributes = {"kernel_shape": (1, 1), "strides": chain.strides}
    return [Node("Conv", name, (chain.source, own), (chain.result,), attributes)], {own: weight}
