"""Summaries: rows of the job's result table in the contract's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.metrics import COUNTED, base_metric, device_of
from workers.progress import Evaluated

COUNTS = tuple(metric.name for metric in COUNTED)


def summary(
    *,
    evaluation_id: str | None = None,
    strategy: str | None = None,
    accuracy: float | None = None,
    test_accuracy: float | None = None,
    latency_ms: Mapping[str, Mapping[str, float | None]] | None = None,
    counts: Mapping[str, float],
    **more: object,
) -> dict[str, Any]:
    """Return one row. `latency_ms`: device id -> any of predicted, low, high, measured, measured_high. `counts`:
    COUNTS, as far as known: rows recorded by an earlier version lack metrics that were added since. `more`: further
    facts for the report.
    """
    return {
        "evaluation_id": evaluation_id,
        "strategy": strategy,
        "accuracy": accuracy,
        "test_accuracy": test_accuracy,
        "latency_ms": {device: _filled(row) for device, row in (latency_ms or {}).items()},
        **{name: int(counts[name]) for name in COUNTS if name in counts},
        **more,
    }


def predicted_summary(evaluated: Evaluated) -> dict[str, Any]:
    """Return the row of a candidate of the search, before training and timing."""
    metrics = evaluated.evaluation.metrics
    latency = {
        device: {"predicted": value}
        for key, value in metrics.items()
        if base_metric(key) == "latency_ms" and (device := device_of(key)) is not None
    }
    return summary(
        evaluation_id=evaluated.evaluation.candidate.id,
        strategy=evaluated.strategy,
        accuracy=metrics.get("accuracy"),
        latency_ms=latency,
        counts=metrics,
    )


def _filled(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: row.get(name) for name in ("predicted", "low", "high", "measured", "measured_high")}
