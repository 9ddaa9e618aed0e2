"""Preference: which of several networks that meet the limits is the best; one order wherever one is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from search.metrics import base_metric
from search.problem import ACCURACY


def preference(utility: float, metrics: Mapping[str, float]) -> tuple[float, float, float, float]:
    """A key to sort by, the best first: the objective's utility; of equals the more accurate, then the faster, then the
    smaller network. Latency is summed over the devices, so that none of them is looked at first. A metric that is not
    known decides nothing.
    """
    latency_ms = sum(value for key, value in sorted(metrics.items()) if base_metric(key) == "latency_ms")
    return -utility, -metrics.get(ACCURACY, 0.0), latency_ms, metrics.get("stored_bytes", 0.0)
