"""Ops that move channels without computing: their flow is an index map, their resize an adjusted steering constant."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.conv import torch_pads
from compress.ops.row import (
    Axes,
    Flow,
    Indices,
    Kept,
    Link,
    Resized,
    Row,
    TorchOp,
    channel_axis,
    freeze,
    same,
    whole,
)

REGROUPED_MAX = 1 << 24  # elements of one sample that a Reshape's index map may have


def constant_ints(node: Node, network: Network, position: int) -> tuple[int, ...] | None:
    """The integers of a constant input; None where it is left out. Raises Unsupported where it is computed."""
    name = node.input(position)
    if not name:
        return None
    if name not in network.constants:
        raise Unsupported(f"{node.op_type} steered by a computed tensor")
    return tuple(int(value) for value in network.constants[name].reshape(-1))


def _axes_of(node: Node, network: Network, position: int = 1) -> tuple[int, ...] | None:
    found = constant_ints(node, network, position)
    return found if found is not None else node.get("axes", None)


# ---- Reshape, Flatten: the channel axis is split or merged


def regroup(before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> tuple[int, Indices, Indices]:
    """Where a channel axis goes in a reshape: the axis after, and the pairs (index before, index after) that are tied.

    An axis after qualifies when one of the two indices determines the other: c -> c * H * W + k when flattening,
    and back when unflattening. Shapes are those of one sample at batch 1, batch first.

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


# ---- Transpose, Squeeze, Unsqueeze: the channel axis is renumbered


def _flow_moved(node: Node, network: Network, axes: Axes, order: list[int | None]) -> Flow:
    """`order[j]` is the input axis that becomes output axis j (None: a new axis of size 1)."""
    x, y = node.input(0), node.outputs[0]
    axis = channel_axis(x, network, axes)
    if axis is None:
        return Flow({y: None})
    if axis not in order:
        return Flow({y: None}, frozen=freeze((x,), f"{node.op_type} drops the channel axis"))
    after = order.index(axis)
    return Flow({y: after}, (same((x, axis), (y, after), network.shape(x)[axis]),))


def _permutation(node: Node, network: Network) -> list[int]:
    rank = len(network.shape(node.input(0)))
    return list(node.get("perm", tuple(reversed(range(rank)))))


def _build_transpose(node: Node, network: Network) -> TorchOp:
    order = _permutation(node, network)
    return lambda x: x.permute(order)


def _flow_transpose(node: Node, network: Network, axes: Axes) -> Flow:
    return _flow_moved(node, network, axes, list(_permutation(node, network)))


def _squeezed(node: Node, network: Network) -> set[int]:
    shape = network.shape(node.input(0))
    found = _axes_of(node, network)
    if found is None:
        raise Unsupported("Squeeze without axes")
    return {axis % len(shape) for axis in found}


def _build_squeeze(node: Node, network: Network) -> TorchOp:
    gone = tuple(sorted(_squeezed(node, network)))
    return lambda x, *_: x.squeeze(gone)


def _flow_squeeze(node: Node, network: Network, axes: Axes) -> Flow:
    gone = _squeezed(node, network)
    rank = len(network.shape(node.input(0)))
    return _flow_moved(node, network, axes, [axis for axis in range(rank) if axis not in gone])


def _added(node: Node, network: Network) -> list[int]:
    found = _axes_of(node, network)
    if found is None:
        raise Unsupported("Unsqueeze without axes")
    rank = len(network.shape(node.outputs[0]))
    return sorted(axis % rank for axis in found)


def _build_unsqueeze(node: Node, network: Network) -> TorchOp:
    added = _added(node, network)

    def run(x: Tensor, *_: object) -> Tensor:
        for axis in added:
            x = x.unsqueeze(axis)
        return x

    return run


def _flow_unsqueeze(node: Node, network: Network, axes: Axes) -> Flow:
    added, source = _added(node, network), iter(range(len(network.shape(node.input(0)))))
    rank = len(network.shape(node.outputs[0]))
    return _flow_moved(node, network, axes, [None if axis in added else next(source) for axis in range(rank)])


# ---- Concat, Split, Slice, Pad, Gather: index maps along the channel axis


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
    name = node.input(1) or f"{node.name}_split"
    attributes = {key: value for key, value in node.attributes.items() if key not in ("num_outputs", "split")}
    sizes = np.array([len(kept.index(output)) for output in node.outputs], dtype=np.int64)
    return Resized(Node("Split", node.name, (x, name), node.outputs, attributes), {name: sizes})


def _ranges(node: Node, network: Network) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of a Slice, resolved against the input's sizes."""
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
    ranges = _ranges(node, network)
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
    for along, start, end, step in _ranges(node, network):
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
    for along, start, end, _ in _ranges(node, network):
        if along == axis:
            position = [a % len(network.shape(x)) for a in axes].index(axis)
            starts[position], ends[position] = np.searchsorted(stays, (start, end))
    return Resized(node, {node.input(1): starts, node.input(2): ends})


def _pads(node: Node, network: Network) -> list[int]:
    """Pads of every axis, all begins then all ends."""
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
    pads, mode = _pads(node, network), node.get("mode", "constant")
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
    pads, size = _pads(node, network), network.shape(x)[axis]
    front, back = pads[axis], pads[axis + len(network.shape(x))]
    if (front or back) and node.get("mode", "constant") != "constant":
        raise Unsupported("Pad that mirrors channels")
    return Flow({y: axis}, (Link((x, axis), whole(size), (y, axis), whole(size) + front),))


def _resize_pad(node: Node, kept: Kept) -> Resized:
    x, y, network = node.input(0), node.outputs[0], kept.network
    axis = kept.axes.get(y)
    if axis is None or not kept.touched(y):
        return Resized(node)
    pads, rank = _pads(node, network), len(network.shape(x))
    stays, end = kept.index(y), network.shape(y)[axis] - pads[axis + rank]
    pads[axis], pads[axis + rank] = int((stays < pads[axis]).sum()), int((stays >= end).sum())
    inputs = (
        x,
        node.input(1),
        *((node.input(2),) if node.input(2) else ()),
    )  # every axis is given: no axes input
    return Resized(Node("Pad", node.name, inputs, node.outputs, node.attributes), {node.input(1): np.array(pads)})


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
    Row(("Reshape",), _build_reshape, _flow_reshape, _resize_reshape),
    Row(("Flatten",), _build_flatten, _flow_reshape),
    Row(("Transpose",), _build_transpose, _flow_transpose),
    Row(("Squeeze",), _build_squeeze, _flow_squeeze),
    Row(("Unsqueeze",), _build_unsqueeze, _flow_unsqueeze),
    Row(("Concat",), _build_concat, _flow_concat),
    Row(("Split",), _build_split, _flow_split, _resize_split),
    Row(("Slice",), _build_slice, _flow_slice, _resize_slice),
    Row(("Pad",), _build_pad, _flow_pad, _resize_pad),
    Row(("Gather",), _build_gather, _flow_gather, _resize_gather),
)
