"""Summaries: rows of the job's result table in the contract's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.scoring.difference import Difference
from search.metric import Metric
from search.metrics import COUNTED, base_metric, device_of
from workers.progress import Evaluated
from workers.training.trained import Trained

COUNTS = tuple(metric.name for metric in COUNTED)


def summary(
    score: Mapping[str, Any],
    *,
    evaluation_id: str | None = None,
    strategy: str | None = None,
    latency_ms: Mapping[str, Mapping[str, float | None]] | None = None,
    counts: Mapping[str, float],
    **more: object,
) -> dict[str, Any]:
    """Return one row. `score` has its `score_fields`. `latency_ms` maps each device id to any of predicted, low, high,
    measured and measured_high. `counts` has every known count of COUNTS; rows recorded by an earlier version lack
    metrics that were added since. `more` has further facts for the report.
    """
    return {
        "evaluation_id": evaluation_id,
        "strategy": strategy,
        **score,
        "latency_ms": {device: _filled(row) for device, row in (latency_ms or {}).items()},
        **{name: int(counts[name]) for name in COUNTS if name in counts},
        **more,
    }


def score_fields(metric: Metric, score: float | None = None, test: float | None = None) -> dict[str, Any]:
    """Return the fields of the mean scores; for the metric `accuracy`, these are `accuracy` and `test_accuracy`."""
    return {metric.name: score, metric.on_test.name: test}


def training_fields(trained: Trained) -> dict[str, Any]:
    """Return the fields that tell which weights a network has: those after `epoch` of `epochs`, or `untrained` ones."""
    return {"epoch": trained.epochs, "epochs": trained.ended_at, "untrained": trained.untrained}


def interval_field(metric: Metric, interval: tuple[float, float], count: int) -> dict[str, Any]:
    """Return the field of the 95 % interval of a score computed on `count` images, such as `accuracy_interval`."""
    return {f"{metric.name}_interval": {"low": interval[0], "high": interval[1], "n": count}}


def drop_field(metric: Metric, lost: Difference) -> dict[str, Any]:
    """Return the field of the loss against the control, such as `accuracy_drop`."""
    return {f"{metric.name}_drop": {"mean": lost.mean, "low": lost.low, "high": lost.high, "n": lost.count}}


def predicted_summary(metric: Metric, evaluated: Evaluated) -> dict[str, Any]:
    """Return the row of a candidate of the search, before training and timing."""
    metrics = evaluated.evaluation.metrics
    latency = {
        device: {"predicted": value}
        for key, value in metrics.items()
        if base_metric(key) == "latency_ms" and (device := device_of(key)) is not None
    }
    return summary(
        score_fields(metric, metrics.get(metric.name)),
        evaluation_id=evaluated.evaluation.candidate.id,
        strategy=evaluated.strategy,
        latency_ms=latency,
        counts=metrics,
    )


def _filled(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: row.get(name) for name in ("predicted", "low", "high", "measured", "measured_high")}
