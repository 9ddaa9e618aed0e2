"""Input layout: the order of the axes of a network's input. PyTorch puts the channels first, Keras puts them last.

The input of an uploaded file is not changed; images are laid out to fit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from compress.network import Network, Node

Layout: TypeAlias = Literal["NCHW", "NHWC"]
CHANNELS = (1, 3)  # numbers of channels of grey and RGB images; they identify the channel axis if no node does
# Ops that leave the axes where they are; the node behind them determines the layout.
PASSING = frozenset(
    {"Identity", "Cast", "Add", "Sub", "Mul", "Div", "Clip", "Pad", "QuantizeLinear", "DequantizeLinear"}
)
CHANNELS_FIRST = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "BatchNormalization",
        "InstanceNormalization",
        "DepthToSpace",
        "SpaceToDepth",
        "LRN",
    }
)


def input_layout(network: Network) -> Layout:
    """Return the layout, from the nodes that read the input or else from its shape."""
    said = {_said(network, node) for node in _readers(network, network.input_name)} - {None}
    if len(said) == 1:
        return said.pop() or "NCHW"
    shape = network.input_shape
    last = len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS
    return "NHWC" if last else "NCHW"


def image_shape(network: Network) -> tuple[int, ...]:
    """Return (C, H, W) of the images that the network takes, whatever the order of its input's axes."""
    shape = network.input_shape
    if len(shape) != 3 or input_layout(network) == "NCHW":
        return shape
    height, width, channels = shape
    return (channels, height, width)


def _readers(network: Network, tensor: str) -> Iterator[Node]:
    for node in network.consumers(tensor):
        if node.op_type in PASSING:
            yield from _readers(network, node.outputs[0])
        else:
            yield node


def _said(network: Network, node: Node) -> Layout | None:
    if node.op_type in CHANNELS_FIRST:
        return "NCHW"
    if node.op_type == "Transpose":
        by_perm: dict[object, Layout] = {(0, 3, 1, 2): "NHWC", (0, 2, 3, 1): "NCHW"}
        return by_perm.get(tuple(node.get("perm", ())))
    if node.op_type == "Reshape":  # tf2onnx writes the Transpose of one channel as a Reshape
        before, after = network.input_shape, network.shape(node.outputs[0])[1:]
        return "NHWC" if len(before) == 3 and before[2] == 1 and after == (1, *before[:2]) else None
    return None
