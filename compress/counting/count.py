"""Count: how a metric is counted on a network, exactly and, for estimates, as a sum over nodes."""

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
    """A network as it is counted.

    Attributes:
        computes: it before its weights go into fewer bits: those keep weights in other types.
        final: what the file holds.
        file: the file's bytes.
    """

    computes: Network
    final: Network
    file: bytes

    @classmethod
    def of(cls, network: Network) -> Form:
        """A network as it is, saved."""
        return cls(network, network, network.save())

    @cached_property
    def cost(self) -> Cost:
        """What it computes and holds."""
        return cost(self.computes)

    @cached_property
    def file_cost(self) -> Cost:
        """What the file takes."""
        return sent(cost(self.final), self.file)


@dataclass(frozen=True)
class Count:
    """The counter of one metric.

    Attributes:
        exact: the number of a network that is made.
        of_node: what a node of a rewritten network adds; estimates are sums of it. The rest of the network, such as
            the file's header, is the same for every candidate.
        thinned: for the part of another metric, in the place of `of_node`: what is added to the other one's estimate
            by a density; (densities, numbers that layers' weights hold, their bytes), each (n,) -> (n,).
    """

    exact: Callable[[Form], float]
    of_node: Callable[[Node, Network, NodeCost], float] | None = None
    thinned: Callable[[Counts, Counts, Counts], Counts] | None = None

    def __post_init__(self) -> None:
        if (self.of_node is None) == (self.thinned is None):
            raise ValueError("a count is estimated either by node or as a part of another one")


def counter(reference: str) -> Count:
    """The count that a metric names. Raises: TypeError if the name "module:constant" stands for something else."""
    found = resolve_name(reference)
    if not isinstance(found, Count):
        raise TypeError(f"{reference} is {found!r}, not a Count")
    return found
