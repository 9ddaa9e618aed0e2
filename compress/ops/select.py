"""Slice and Gather: they select channels of a tensor; `resize` adjusts the selection after a cut."""

from __future__ import annotations

import numpy as np
import torch

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Kept, Link, Resized, Row, TorchOp, channel_axis, constant_ints, whole


def ranges_of(node: Node, network: Network) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, end, step) of a Slice, resolved against the input's sizes."""
    shape = network.shape(node.input(0))
    starts, ends = constant_ints(node, network, 1), constant_ints(node, network, 2)
    if starts is None or ends is None:
        raise Unsupported("Slice without constant bounds")
    axes = constant_ints(node, network, 3) or tuple(range(len(starts)))
    steps = constant_ints(node, network, 4) or (1,) * len(starts)
    batch = network.types[node.input(0)].batch_axis
    resolved = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        if axis == batch:
            if start == 0 and step == 1 and end > 1 << 30:
                continue
            raise Unsupported("Slice of the batch")
        low, high, stride = slice(start, end, step).indices(shape[axis])
        resolved.append((axis, low, high, stride))
    return resolved


def _build_slice(node: Node, network: Network) -> TorchOp:
    ranges = ranges_of(node, network)
    if any(step < 0 for *_, step in ranges):
        raise Unsupported("Slice with a negative step")
    index = [slice(None)] * len(network.shape(node.input(0)))
    for axis, start, end, step in ranges:
        index[axis] = slice(start, end, step)
    taken = tuple(index)
    return lambda x, *_: x[taken]


def _flow_slice(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is None:
        return Flow({y: None})
    taken = whole(network.shape(x)[axis])
    for along, start, end, step in ranges_of(node, network):
        if along == axis:
            if step != 1:
                raise Unsupported("Slice that skips channels")
            taken = taken[start:end]
    return Flow({y: axis}, (Link((x, axis), taken, (y, axis), whole(len(taken))),))


def _resize_slice(node: Node, kept: Kept) -> Resized:
    x, network = node.input(0), kept.network
    axis = kept.axes.get(x)
    if axis is None or not kept.touched(x):
        return Resized(node)
    stays = kept.index(x)
    starts, ends = (network.constants[node.input(i)].copy() for i in (1, 2))
    axes = constant_ints(node, network, 3) or tuple(range(len(starts)))
    for along, start, end, _ in ranges_of(node, network):
        if along == axis:
            position = [a % len(network.shape(x)) for a in axes].index(axis)
            starts[position], ends[position] = np.searchsorted(stays, (start, end))
    return Resized(node, {node.input(1): starts, node.input(2): ends})


def _build_gather(node: Node, network: Network) -> TorchOp:
    indices = constant_ints(node, network, 1)
    if indices is None or node.input(0) in network.constants:
        raise Unsupported("Gather by computed indices")
    shape = network.shape(node.input(1))
    axis = node.get("axis", 0) % len(network.shape(node.input(0)))
    size = network.shape(node.input(0))[axis]
    index = torch.tensor([i % size for i in indices])
    if len(shape) == 1:
        return lambda x, *_: x.index_select(axis, index)
    if len(shape) == 0:
        return lambda x, *_: x.select(axis, int(index[0]))
    raise Unsupported("Gather by a matrix of indices")


def _flow_gather(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis, along = channel_axis(x, network, axes), node.get("axis", 0) % len(network.shape(x))
    indices = constant_ints(node, network, 1)
    if axis is None:
        return Flow({y: None})
    if indices is None or len(network.shape(node.input(1))) != 1:
        raise Unsupported("Gather that drops an axis or has computed indices")
    size = network.shape(x)[axis]
    taken = np.array([i % size for i in indices]) if along == axis else whole(size)
    return Flow({y: axis}, (Link((x, axis), taken, (y, axis), whole(len(taken))),))


def _resize_gather(node: Node, kept: Kept) -> Resized:
    x, y, network = node.input(0), node.outputs[0], kept.network
    axis = kept.axes.get(x)
    if axis is None or not kept.touched(x) or node.get("axis", 0) % len(network.shape(x)) != axis:
        return Resized(node)
    old = network.constants[node.input(1)] % network.shape(x)[axis]
    fresh = np.searchsorted(kept.index(x), old[kept.index(y)])
    return Resized(node, {node.input(1): fresh.astype(old.dtype)})


ROWS = (
    Row(("Slice",), _build_slice, _flow_slice, _resize_slice),
    Row(("Gather",), _build_gather, _flow_gather, _resize_gather),
)
