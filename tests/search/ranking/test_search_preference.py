"""One order of the networks that meet the limits."""

from __future__ import annotations

from search.ranking.preference import preference


def test_the_objective_then_accuracy_then_latency_then_bytes() -> None:
    rows = {
        "objective": (2.0, {"accuracy": 0.1, "latency_ms@a": 9.0, "stored_bytes": 9.0}),
        "accuracy": (1.0, {"accuracy": 0.9, "latency_ms@a": 9.0, "stored_bytes": 9.0}),
        "latency": (1.0, {"accuracy": 0.8, "latency_ms@a": 1.0, "latency_ms@b": 2.0, "stored_bytes": 9.0}),
        "bytes": (1.0, {"accuracy": 0.8, "latency_ms@b": 1.0, "latency_ms@a": 3.0, "stored_bytes": 1.0}),
        "last": (1.0, {"accuracy": 0.8, "latency_ms@a": 4.0, "stored_bytes": 2.0}),
    }
    shuffled = sorted(rows)
    assert sorted(shuffled, key=lambda name: preference(*rows[name], "accuracy")) == list(rows)


def test_metrics_that_are_not_known_decide_nothing() -> None:
    assert preference(1.0, {}, "accuracy") == preference(1.0, {"macs": 5.0}, "accuracy")
