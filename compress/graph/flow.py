"""Trace: the way channels pass through a whole network, collected from the rows of its ops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from compress.errors import Unsupported
from compress.network import Network, Node
from compress.ops import find_row
from compress.ops.row import Flow, Link, Slot


@dataclass
class Trace:
    """The channel flow of a whole network.

    Attributes:
        axes: channel axis of each activation that has one.
        links: pairs of channels that must be kept or removed together.
        frozen: tensor -> why all its channels must stay.
        filters: weight axes that produce output channels, in execution order.
        readers: pairs (weight axis, activation): the weight reads the channels of the activation.
    """

    axes: dict[str, int | None] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    frozen: dict[str, str] = field(default_factory=dict)
    filters: list[Slot] = field(default_factory=list)
    readers: list[tuple[Slot, str]] = field(default_factory=list)

    @classmethod
    def start(cls, network: Network) -> Trace:
        """Return the flow before the first node: the channels of the inputs, which must stay."""
        found = cls({name: 1 if len(kind.shape) > 1 else None for name, kind in network.inputs.items()})
        found.freeze(network.inputs, "input of the network")
        return found

    def add(self, flow: Flow) -> None:
        """Add the flow of one more node."""
        self.axes.update(flow.axes)
        self.links.extend(flow.links)
        self._freeze(flow.frozen)
        self.filters.extend(flow.filters)
        self.readers.extend(flow.readers)

    def freeze(self, tensors: Iterable[str], reason: str) -> None:
        """Require that all channels of these tensors stay. The first reason for a tensor is reported."""
        self._freeze({tensor: reason for tensor in tensors if tensor})

    def _freeze(self, frozen: Mapping[str, str]) -> None:
        for tensor, reason in frozen.items():
            self.frozen.setdefault(tensor, reason)


def trace(network: Network) -> Trace:
    """Return the channel flow of all nodes. A node that no row covers freezes the tensors that it touches."""
    found = Trace.start(network)
    for node in network.nodes:
        found.add(flow_of(node, network, found))
    found.freeze(network.outputs, "output of the network")
    return found


def flow_of(node: Node, network: Network, found: Trace) -> Flow:
    """Return how channels pass through one node, given the flow of the nodes before it."""
    row = find_row(node)
    try:
        if row is None:
            raise Unsupported(node.opaque or f"op {node.op_type} is not in the op tables")
        return row.flow(node, network, found.axes)
    except Unsupported as case:
        touched = [name for name in (*node.inputs, *node.outputs) if name]
        return Flow(frozen=dict.fromkeys(touched, f"{case} (node {node.name!r})"))
