"""What is counted on a network: the metrics that name a counter, each with it."""

from __future__ import annotations

from collections.abc import Mapping

from compress.counting.count import Count, Form, counter
from compress.counting.node_cost import NodeCost
from compress.network import Network, Node
from search.metrics import COUNTED

COUNTS: Mapping[str, Count] = {metric.name: counter(metric.counter) for metric in COUNTED}
WHOLES: Mapping[str, str] = {metric.name: metric.part_of for metric in COUNTED if COUNTS[metric.name].thinned}
"""Metric -> the one that its estimate starts from."""
for part, whole in WHOLES.items():
    if COUNTS.get(whole) is None or whole in WHOLES:
        raise ValueError(f"metric {part} is part_of {whole!r}, which must be a metric that is counted by node")


def counted(form: Form) -> dict[str, int]:
    """Every count of a network that is made."""
    return {name: int(count.exact(form)) for name, count in COUNTS.items()}


def counted_by_weights(form: Form) -> dict[str, int]:
    """The counts that depend on which weights are zero, so that training alone tells them."""
    return {name: int(COUNTS[name].exact(form)) for name in WHOLES}


def counted_of_node(node: Node, network: Network, cost: NodeCost) -> dict[str, float]:
    """What a node adds to each count that is a sum over nodes."""
    return {name: count.of_node(node, network, cost) for name, count in COUNTS.items() if count.of_node is not None}
