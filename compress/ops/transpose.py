"""Transpose, Squeeze and Unsqueeze: they renumber the channel axis."""

from __future__ import annotations

from torch import Tensor

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops.row import Axes, Flow, Row, TorchOp, channel_axis, constant_ints, freeze, same


def _axes_of(node: Node, network: Network) -> tuple[int, ...] | None:
    found = constant_ints(node, network, 1)
    return found if found is not None else node.get("axes", None)


def _flow_moved(node: Node, network: Network, axes: Axes, order: list[int | None]) -> Flow:
    """Link input and output channels; `order[j]` is the input axis of output axis j (None: a new axis of size 1)."""
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


ROWS = (
    Row(("Transpose",), _build_transpose, _flow_transpose),
    Row(("Squeeze",), _build_squeeze, _flow_squeeze),
    Row(("Unsqueeze",), _build_unsqueeze, _flow_unsqueeze),
)
