"""Reshape and Flatten: the channel axis is split or merged; its flow is an index map."""

from __future__ import annotations

from math import prod

import numpy as np
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Indices, Kept, Link, Resized, Row, TorchOp, channel_axis, constant_ints

REGROUPED_MAX = 1 << 24  # the most elements of one sample that a Reshape's index map may have


def regroup(before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> tuple[int, Indices, Indices]:
    """Return the channel axis after a reshape, and the pairs (index before, index after) that are tied.

    An axis qualifies if one of the two indices determines the other: c -> c * H * W + k when flattening, and the
    inverse when unflattening. Shapes are the shapes at batch 1, with the batch first.

    Raises:
        Unsupported: no axis qualifies, or the tensor is too large to map.
    """
    if prod(before) > REGROUPED_MAX:
        raise Unsupported("Reshape of a very large tensor")
    own = np.arange(before[axis]).reshape([-1 if i == axis else 1 for i in range(len(before))])
    own = np.broadcast_to(own, before).reshape(-1)
    for candidate in range(1, len(after)):
        size = after[candidate]
        other = np.arange(size).reshape([-1 if i == candidate else 1 for i in range(len(after))])
        other = np.broadcast_to(other, after).reshape(-1)
        pairs = np.unique(own * size + other)
        if len(pairs) == max(before[axis], size) and (size > 1 or before[axis] == 1):
            return candidate, pairs // size, pairs % size
    raise Unsupported("Reshape that mixes channels with other axes")


def _flow_reshape(node: Node, network: Network, axes: Axes) -> Flow:
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is None:
        return Flow({y: None})
    if network.types[x].batch_axis != 0 or network.types[y].batch_axis != 0:
        raise Unsupported(f"{node.op_type} that moves the batch")
    after, a_index, b_index = regroup(network.shape(x), axis, network.shape(y))
    return Flow({y: after}, (Link((x, axis), a_index, (y, after), b_index),))


def _build_reshape(node: Node, network: Network) -> TorchOp:
    shape = constant_ints(node, network, 1)
    if shape is None or node.get("allowzero", 0):
        raise Unsupported("Reshape without a constant shape")

    def run(x: Tensor, *_: object) -> Tensor:
        return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])

    return run


def _resize_reshape(node: Node, kept: Kept) -> Resized:
    if not (kept.touched(node.input(0)) or kept.touched(node.outputs[0])):
        return Resized(node)
    shape = (-1, *kept.shape(node.outputs[0])[1:])
    return Resized(node, {node.input(1): np.array(shape, dtype=np.int64)})


def _build_flatten(node: Node, network: Network) -> TorchOp:
    axis = node.get("axis", 1)
    if (axis + len(network.shape(node.input(0))) if axis < 0 else axis) != 1:
        raise Unsupported(f"Flatten at axis {axis}")
    return lambda x: x.flatten(1)


ROWS = (
    Row(("Reshape",), _build_reshape, _flow_reshape, _resize_reshape),
    Row(("Flatten",), _build_flatten, _flow_reshape),
)
