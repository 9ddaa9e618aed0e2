"""Multiply-accumulates at batch 1."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "macs",
    "",
    "min",
    "MACs",
    ",.0f",
    order=40,
    counter="compress.counting.counts:MACS",
    axis_for=(),
)
