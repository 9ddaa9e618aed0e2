"""The file's length if each constant is stored in its smallest form, e.g. without zeros."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "stored_bytes",
    "bytes",
    "min",
    "Stored with indices",
    ",.0f",
    order=80,
    counter="compress.counting.counts:STORED_BYTES",
    part_of="size_bytes",
    axis_for=("weight_prune",),
    breaks_ties=True,
)
