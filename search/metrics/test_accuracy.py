"""The share of test samples that are right, read once, at the end."""

from __future__ import annotations

from search.metric import Metric

METRIC = Metric(
    "test_accuracy",
    "%",
    "max",
    "Accuracy (test)",
    ".2f",
    factor=100.0,
    highest=1.0,
    decides=False,
    order=20,
)
