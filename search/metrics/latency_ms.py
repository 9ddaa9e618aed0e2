"""The time of one inference on a device."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "latency_ms",
    "ms",
    "min",
    "Latency",
    ".3f",
    per_device=True,
    order=30,
)
