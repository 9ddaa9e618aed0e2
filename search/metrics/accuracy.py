"""The share of validation samples that are classified correctly, which ranks candidates and decides."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "accuracy",
    "%",
    "max",
    "Accuracy (validation)",
    ".2f",
    factor=100.0,
    highest=1.0,
    order=10,
    scored=True,
)
