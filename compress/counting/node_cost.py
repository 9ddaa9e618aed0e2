"""Node costs: the contribution of each node to a network's counts. Counts, like latency, are sums over nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from compress.counting.work import macs, weights
from compress.network import Array, Network, Node, node_proto


@dataclass(frozen=True)
class NodeCost:
    """Counts of one node and of the constants that no earlier node reads. A tied constant is thus counted once.

    `macs` are at batch 1; `parameters` are the numbers that are trained; `size_bytes` are the bytes of the node and its
    constants in the file; `weights` and `weight_bytes` count the layers' weights (constants with more than one axis),
    which a density reduces.
    """

    macs: int = 0
    parameters: int = 0
    size_bytes: int = 0
    weights: int = 0
    weight_bytes: int = 0

    def __add__(self, other: NodeCost) -> NodeCost:
        return NodeCost(
            self.macs + other.macs,
            self.parameters + other.parameters,
            self.size_bytes + other.size_bytes,
            self.weights + other.weights,
            self.weight_bytes + other.weight_bytes,
        )


def node_costs(network: Network) -> Mapping[str, NodeCost]:
    """Return node name -> its counts. The header of the graph belongs to no node."""
    counted = set(weights(network))
    seen: set[str] = set()
    found = {}
    for node in network.nodes:
        fresh = [name for name in dict.fromkeys(node.inputs) if name in network.constants and name not in seen]
        seen.update(fresh)
        found[node.name] = _own(node, network) + sum((_held(n, network, n in counted) for n in fresh), NodeCost())
    return found


def _own(node: Node, network: Network) -> NodeCost:
    return NodeCost(macs=macs(node, network), size_bytes=framed_bytes(node_proto(node)))


def _held(name: str, network: Network, counted: bool) -> NodeCost:
    value = network.stored(name)
    layer = counted and value.ndim > 1
    return NodeCost(
        parameters=value.size if counted else 0,
        size_bytes=_stored_bytes(name, value, network),
        weights=value.size if layer else 0,
        weight_bytes=value.nbytes if layer else 0,
    )


def _stored_bytes(name: str, value: Array, network: Network) -> int:
    """Return the bytes of a constant in the file, including the Cast that widens it if it is stored as float16."""
    dense = np.asarray(value, order="C")
    if value.dtype == network.constants[name].dtype:
        return framed_bytes(numpy_helper.from_array(dense, name))
    cast = network.widening(name)
    return framed_bytes(node_proto(cast)) + framed_bytes(numpy_helper.from_array(dense, cast.inputs[0]))


def framed_bytes(message: onnx.NodeProto | onnx.TensorProto) -> int:
    """Return the bytes of a message inside another message: content, tag, and length in groups of seven bits."""
    size = int(message.ByteSize())
    return 1 + max(1, -(-size.bit_length() // 7)) + size
