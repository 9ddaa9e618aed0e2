"""Preference: which of several networks that meet the limits is the best; one order wherever one is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from search.metrics import METRICS, base_metric


def preference(utility: float, metrics: Mapping[str, float], deciding: str) -> tuple[float, ...]:
    """A key to sort by, the best first: the objective's utility; of equals the one with more of the deciding metric
    (accuracy), then the faster, then the one with less of the metrics that break ties. Latency is summed over the
    devices, so that none of them is looked at first. A metric that is not known decides nothing.
    """
    latency_ms = sum(value for key, value in sorted(metrics.items()) if base_metric(key) == "latency_ms")
    ties = (metrics.get(metric.name, 0.0) for metric in METRICS.values() if metric.breaks_ties)
    return (-utility, -metrics.get(deciding, 0.0), latency_ms, *ties)
