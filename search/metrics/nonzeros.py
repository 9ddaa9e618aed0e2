"""The number of trained parameters that are not zero."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "nonzeros",
    "",
    "min",
    "Non-zero parameters",
    ",.0f",
    order=70,
    counter="compress.counting.counts:NONZEROS",
    part_of="parameters",
)
