"""Preference: the order of networks that meet the limits. The same order applies wherever a network is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from search.metrics import METRICS, base_metric


def preference(utility: float, metrics: Mapping[str, float], deciding: str) -> tuple[float, ...]:
    """Return a key for sorting that puts the best network first.

    The key compares the objective's utility, then the deciding metric, then latency summed over the devices, then the
    metrics that break ties. An unknown metric is ignored.
    """
    latency_ms = sum(value for key, value in sorted(metrics.items()) if base_metric(key) == "latency_ms")
    ties = (metrics.get(metric.name, 0.0) for metric in METRICS.values() if metric.breaks_ties)
    return (-utility, -metrics.get(deciding, 0.0), latency_ms, *ties)
