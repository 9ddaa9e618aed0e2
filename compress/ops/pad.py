"""Pad: values around a tensor, possibly constant channels."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.conv import torch_pads
from compress.ops.row import Axes, Flow, Kept, Link, Resized, Row, TorchOp, channel_axis, constant_ints, whole


def pads_of(node: Node, network: Network) -> list[int]:
    """Return the pads of every axis, all begins then all ends."""
    rank = len(network.shape(node.input(0)))
    given = constant_ints(node, network, 1)
    if given is None:
        raise Unsupported("Pad without constant pads")
    axes = constant_ints(node, network, 3)
    if axes is None:
        return list(given)
    full = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        full[axis % rank] = given[position]
        full[rank + axis % rank] = given[len(axes) + position]
    return full


def _build_pad(node: Node, network: Network) -> TorchOp:
    pads, mode = pads_of(node, network), node.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge") or min(pads) < 0:
        raise Unsupported(f"Pad of mode {mode} or with negative pads")
    value = 0.0
    if node.input(2):
        if node.input(2) not in network.constants:
            raise Unsupported("Pad with a computed value")
        value = float(network.constants[node.input(2)].reshape(-1)[0])
    order = torch_pads(tuple(pads))
    if mode == "constant":
        return lambda x, *_: F.pad(x, order, value=value)
    while order and order[-2:] == [0, 0]:
        order = order[:-2]
    torch_mode = {"reflect": "reflect", "edge": "replicate"}[mode]
    return lambda x, *_: F.pad(x, order, mode=torch_mode)


def _flow_pad(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is None:
        return Flow({y: None})
    pads, size = pads_of(node, network), network.shape(x)[axis]
    front, back = pads[axis], pads[axis + len(network.shape(x))]
    if (front or back) and node.get("mode", "constant") != "constant":
        raise Unsupported("Pad that mirrors channels")
    return Flow({y: axis}, (Link((x, axis), whole(size), (y, axis), whole(size) + front),))


def _resize_pad(node: Node, kept: Kept) -> Resized:
    x, y, network = node.input(0), node.outputs[0], kept.network
    axis = kept.axes.get(y)
    if axis is None or not kept.touched(y):
        return Resized(node)
    pads, rank = pads_of(node, network), len(network.shape(x))
    stays, end = kept.index(y), network.shape(y)[axis] - pads[axis + rank]
    pads[axis], pads[axis + rank] = int((stays < pads[axis]).sum()), int((stays >= end).sum())
    inputs = (
        x,
        node.input(1),
        *((node.input(2),) if node.input(2) else ()),
    )  # pads are given for every axis, so there is no axes input
    return Resized(Node("Pad", node.name, inputs, node.outputs, node.attributes), {node.input(1): np.array(pads)})


ROWS = (Row(("Pad",), _build_pad, _flow_pad, _resize_pad),)
