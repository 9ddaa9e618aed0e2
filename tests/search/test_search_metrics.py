from __future__ import annotations

import pytest

from search.errors import InvalidInput
from search.metrics import (
    LIMITS,
    METRICS,
    base_metric,
    device_of,
    latency_metric,
    parse_limit,
    parse_limits,
    shown_counts,
)
from search.problem import Constraint

ORIGINAL = {"accuracy": 0.9, "macs": 1000.0, "size_bytes": 400.0, "latency_ms@dev_1": 8.0}


def test_every_form_of_limit() -> None:
    limits = {
        "max_accuracy_drop": 0.01,
        "max_size_bytes": 300,
        "max_macs_ratio": 0.5,
        "min_accuracy": 0.8,
        "max_parameters": None,
    }
    assert parse_limits(limits, ORIGINAL) == (
        Constraint("accuracy", 0.89, "min"),
        Constraint("size_bytes", 300.0, "max"),
        Constraint("macs", 500.0, "max"),
        Constraint("accuracy", 0.8, "min"),
    )


@pytest.mark.parametrize("name", ["max_latency_ratio", "max_latency_ms_ratio"])
def test_a_target_s_ratio_is_of_that_device(name: str) -> None:
    assert parse_limits({name: 0.5}, ORIGINAL, "dev_1") == (Constraint("latency_ms@dev_1", 4.0, "max"),)
    assert parse_limits({"max_latency_ms": 5.0}, {}, "dev_2") == (Constraint("latency_ms@dev_2", 5.0, "max"),)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_latncy_ms", 5.0, "did you mean 'max_latency_ms'"),
        ("max_latency_ms", 5.0, "belongs to a target"),
        ("max_macs", 0.0, "above 0"),
        ("max_macs_ratio", -0.5, "above 0"),
        ("max_accuracy_drop", -0.5, "at least 0"),
        ("max_macs", float("nan"), "finite"),
        ("max_macs", True, "finite number"),
        ("min_accuracy", 80.0, "at most 1"),
        ("max_accuracy_drop", 2.0, "at most 1"),
        ("max_parameters_ratio", 0.5, "original's parameters is not known"),
        ("max_macs_drop", 1.0, "no such limit"),
    ],
)
def test_a_wrong_limit_is_named(name: str, value: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_limits({name: value}, ORIGINAL)
    assert caught.value.field == name
    assert caught.value.value in (value, name) or value != value


def test_an_unknown_name_is_refused_even_without_a_value() -> None:
    with pytest.raises(InvalidInput, match="no such limit"):
        parse_limits({"max_latncy_ms": None}, ORIGINAL)


def test_limits_can_be_checked_before_the_original_is_known() -> None:
    assert parse_limit("max_latency_ratio").check(0.5) == 0.5
    assert all(limit.metric.name in METRICS for limit in LIMITS.values())


def test_keys_and_what_people_see() -> None:
    key = latency_metric("dev_1")
    assert (base_metric(key), device_of(key), device_of("macs")) == ("latency_ms", "dev_1", None)
    assert METRICS["accuracy"].show(0.8825) == "88.25 %"
    assert METRICS["macs"].show(41_000_000) == "41,000,000"
    assert METRICS["latency_ms"].show(1.5) == "1.500 ms"


def test_tables_have_columns_for_what_says_something() -> None:
    whole = {"parameters": 1000.0, "size_bytes": 4000.0}
    dense, sparse = {**whole, "nonzeros": 999.0}, {**whole, "nonzeros": 500.0}
    assert [metric.name for metric in shown_counts([dense])] == ["parameters", "size_bytes"]
    assert [metric.name for metric in shown_counts([dense, sparse])] == ["parameters", "size_bytes", "nonzeros"]
    assert [metric.label for metric in shown_counts([{"of_another_installation": 1.0, **whole}])] == [
        "Parameters",
        "File size",
        "of_another_installation",
    ]
    assert shown_counts([]) == ()


def test_the_table_is_in_the_order_of_its_rows() -> None:
    assert list(METRICS) == [each.name for each in sorted(METRICS.values(), key=lambda each: (each.order, each.name))]
    assert METRICS["size_bytes"].heading == "size bytes"
    assert not METRICS["test_accuracy"].decides
