"""Concat and Split: one tensor holds the channels of several other tensors side by side, each at an offset."""

from __future__ import annotations

import numpy as np
import torch

from compress.errors import Unsupported
from compress.graph.names import Names
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Kept, Link, Resized, Row, TorchOp, channel_axis, whole


def _build_concat(node: Node, network: Network) -> TorchOp:
    axis = node.attributes["axis"]
    return lambda *tensors: torch.cat(tensors, dim=axis)


def _flow_concat(node: Node, network: Network, axes: Axes) -> Flow:
    y = node.outputs[0]
    along = node.attributes["axis"] % len(network.shape(y))
    activations = [name for name in node.inputs if name not in network.constants]
    found = {channel_axis(name, network, axes) for name in activations} - {None}
    if len(found) > 1:
        raise Unsupported("Concat of tensors whose channels lie on different axes")
    if not found:
        return Flow({y: None})
    axis = found.pop()
    assert axis is not None
    links, offset = [], 0
    for name in node.inputs:
        size = network.shape(name)[axis]
        links.append(Link((name, axis), whole(size), (y, axis), whole(size) + (offset if axis == along else 0)))
        offset += size
    return Flow({y: axis}, tuple(links))


def _split_sizes(node: Node, network: Network, axis: int) -> list[int]:
    return [network.shape(name)[axis] for name in node.outputs]


def _split_axis(node: Node, network: Network) -> int:
    return int(node.get("axis", 0)) % len(network.shape(node.input(0)))


def _build_split(node: Node, network: Network) -> TorchOp:
    axis = _split_axis(node, network)
    if axis == network.types[node.input(0)].batch_axis:
        raise Unsupported("Split of the batch")
    sizes = _split_sizes(node, network, axis)
    return lambda x, *_: torch.split(x, sizes, dim=axis)


def _flow_split(node: Node, network: Network, axes: Axes) -> Flow:
    x = node.input(0)
    axis, along = channel_axis(x, network, axes), _split_axis(node, network)
    if axis is None:
        return Flow(dict.fromkeys(node.outputs))
    links, offset = [], 0
    for name in node.outputs:
        size = network.shape(name)[axis]
        links.append(Link((name, axis), whole(size), (x, axis), whole(size) + (offset if axis == along else 0)))
        offset += size
    return Flow(dict.fromkeys(node.outputs, axis), tuple(links))


def _resize_split(node: Node, kept: Kept) -> Resized:
    x = node.input(0)
    if not kept.touched(x) or _split_axis(node, kept.network) != kept.axes.get(x):
        return Resized(node)
    name = node.input(1) or Names(kept.network).new(f"{node.name}_split")
    attributes = {key: value for key, value in node.attributes.items() if key not in ("num_outputs", "split")}
    sizes = np.array([len(kept.index(output)) for output in node.outputs], dtype=np.int64)
    return Resized(Node("Split", node.name, (x, name), node.outputs, attributes), {name: sizes})


ROWS = (
    Row(("Concat",), _build_concat, _flow_concat),
    Row(("Split",), _build_split, _flow_split, _resize_split),
)
