"""The number of trained parameters."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "parameters",
    "",
    "min",
    "Parameters",
    ",.0f",
    order=50,
    counter="compress.counting.counts:PARAMETERS",
)
