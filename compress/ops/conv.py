"""Conv: dense, grouped, depthwise or dilated, with one, two or three spatial axes."""

from __future__ import annotations

from math import prod

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Kept, Link, Resized, Row, TorchOp, same, whole

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def spatial_pads(
    node: Node,
    network: Network,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Return the ONNX pads (all begins, then all ends), with auto_pad resolved for the known input size."""
    auto = node.get("auto_pad", "NOTSET")
    count = len(kernel)
    if auto == "NOTSET":
        return tuple(node.get("pads", (0,) * (2 * count)))
    if auto == "VALID":
        return (0,) * (2 * count)
    begins, ends = [], []
    for size, k, s, d in zip(network.shape(node.input(0))[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small = total // 2
        begins.append(small if auto == "SAME_UPPER" else total - small)
        ends.append(total - begins[-1])
    return (*begins, *ends)


def torch_pads(pads: tuple[int, ...]) -> list[int]:
    """Return ONNX pads in the order of torch.nn.functional.pad: last axis first, begin and end together."""
    count = len(pads) // 2
    return [value for axis in reversed(range(count)) for value in (pads[axis], pads[count + axis])]


def _build(node: Node, network: Network) -> TorchOp:
    kernel = network.shape(node.input(1))[2:]
    if len(kernel) not in _CONV or node.input(1) not in network.constants:
        raise Unsupported(f"Conv with a kernel of rank {len(kernel)} or a computed weight")
    strides = tuple(node.get("strides", (1,) * len(kernel)))
    dilations = tuple(node.get("dilations", (1,) * len(kernel)))
    pads = spatial_pads(node, network, kernel, strides, dilations)
    groups = node.get("group", 1)
    half = len(pads) // 2
    symmetric = pads[:half] == pads[half:]
    conv = _CONV[len(kernel)]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not symmetric:
            x = F.pad(x, torch_pads(pads))
        return conv(x, weight, bias, strides, pads[:half] if symmetric else 0, dilations, groups)

    return run


def _flow(node: Node, network: Network, axes: Axes) -> Flow:
    x, weight, bias, y = node.input(0), node.input(1), node.input(2), node.outputs[0]
    if weight not in network.constants:
        raise Unsupported("Conv with a computed weight")
    groups = node.get("group", 1)
    channels_out, per_group_in = network.shape(weight)[:2]
    channels_in = per_group_in * groups
    links = [same((weight, 0), (y, 1), channels_out)]
    if bias:
        links.append(same((weight, 0), (bias, 0), channels_out))
    readers = [((weight, 1), x)]
    if groups == 1:
        links.append(same((x, 1), (weight, 1), channels_in))
    elif per_group_in == 1:
        # Depthwise: filter o reads channel o // multiplier; both are kept or removed together.
        multiplier = channels_out // groups
        links.append(Link((x, 1), np.repeat(whole(groups), multiplier), (weight, 0), whole(channels_out)))
        readers = [((weight, 0), x)]
    else:
        # The groups must stay equal in size: a position is removed from all groups at once, for inputs and outputs.
        out_per_group = channels_out // groups
        links.append(Link((x, 1), whole(channels_in), (weight, 1), whole(channels_in) % per_group_in))
        links.append(Link((weight, 0), whole(channels_out), (weight, 0), whole(channels_out) % out_per_group))
    return Flow({y: 1}, tuple(links), filters=((weight, 0),), readers=tuple(readers))


def _resize(node: Node, kept: Kept) -> Resized:
    groups = node.get("group", 1)
    if groups > 1 and kept.network.shape(node.input(1))[1] == 1:
        groups = len(kept.index(node.input(0), 1))
        attributes = {**node.attributes, "group": groups}
        return Resized(Node(node.op_type, node.name, node.inputs, node.outputs, attributes, node.domain))
    return Resized(node)


def _macs(node: Node, network: Network) -> int:
    weight = network.shape(node.input(1))
    return prod(weight) * prod(network.shape(node.outputs[0])[2:])


ROWS = (Row(("Conv",), _build, _flow, _resize, _macs, trained=(1, 2)),)
