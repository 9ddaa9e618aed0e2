"""The length of the saved file."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "size_bytes",
    "bytes",
    "min",
    "File size",
    ",.0f",
    order=60,
    counter="compress.counting.counts:SIZE_BYTES",
)
