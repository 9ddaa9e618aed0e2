"""Counts of a network: finds the counter that a metric names, and applies it."""

from __future__ import annotations

from collections.abc import Mapping

from compress.counting.count import Count, Form, counter
from compress.counting.node_cost import NodeCost
from compress.network import Network, Node
from search.metrics import COUNTED

COUNTS: Mapping[str, Count] = {metric.name: counter(metric.counter) for metric in COUNTED}
WHOLES: Mapping[str, str] = {metric.name: metric.part_of for metric in COUNTED if COUNTS[metric.name].thinned}
"""Map of each metric that is a part of another metric to the metric from which its estimate starts."""
for part, whole in WHOLES.items():
    if COUNTS.get(whole) is None or whole in WHOLES:
        raise ValueError(f"metric {part} is part_of {whole!r}, which must be a metric counted by node")


def counted(form: Form) -> dict[str, int]:
    """Return every count of a finished network."""
    return {name: int(count.exact(form)) for name, count in COUNTS.items()}


def counted_by_weights(form: Form) -> dict[str, int]:
    """Return the counts that depend on which weights are zero, and so are known only after training."""
    return {name: int(COUNTS[name].exact(form)) for name in WHOLES}


def counted_of_node(node: Node, network: Network, cost: NodeCost) -> dict[str, float]:
    """Return one node's contribution to each count that is a sum over nodes."""
    return {name: count.of_node(node, network, cost) for name, count in COUNTS.items() if count.of_node is not None}
