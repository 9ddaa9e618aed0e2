"""Count: the way a metric is counted on a network, exactly or, for estimates, as a sum over nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name

from compress.counting.cost import Cost, Counts, cost, sent
from compress.counting.node_cost import NodeCost
from compress.network import Network, Node


@dataclass(frozen=True, eq=False)
class Form:
    """The forms of a network that are counted.

    Attributes:
        computes: the network before its weights are stored in fewer bits, which changes their types.
        final: the network in the file.
        file: the bytes of the file.
    """

    computes: Network
    final: Network
    file: bytes

    @classmethod
    def of(cls, network: Network) -> Form:
        """Return the forms of a network that is saved as it is."""
        return cls(network, network, network.save())

    @cached_property
    def cost(self) -> Cost:
        """Cost of the network before packing, e.g. its multiply-accumulates."""
        return cost(self.computes)

    @cached_property
    def file_cost(self) -> Cost:
        """Cost of the file."""
        return sent(cost(self.final), self.file)


@dataclass(frozen=True)
class Count:
    """The counter of one metric.

    Attributes:
        exact: returns the exact number of a finished network.
        of_node: returns a node's contribution in a rewritten network; an estimate is the sum of all contributions. The
            rest of the file, such as its header, is the same for every candidate.
        thinned: replaces `of_node` if this metric is a part of another metric. It returns how much a density changes
            the other metric's estimate: (densities, numbers in layers' weights, their bytes), each (n,) -> (n,).
    """

    exact: Callable[[Form], float]
    of_node: Callable[[Node, Network, NodeCost], float] | None = None
    thinned: Callable[[Counts, Counts, Counts], Counts] | None = None

    def __post_init__(self) -> None:
        if (self.of_node is None) == (self.thinned is None):
            raise ValueError("a count is estimated either node by node or as a part of another metric")


def counter(reference: str) -> Count:
    """Return the count that a metric names as "module:constant". Raises TypeError if the constant is not a Count."""
    found = resolve_name(reference)
    if not isinstance(found, Count):
        raise TypeError(f"{reference} is {found!r}, not a Count")
    return found
