"""The catalogue tells what a job may name, and the checks believe it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded

from compress import methods
from search import strategies
from service.errors import InvalidInput
from service.jobs import catalogue


def test_everything_that_is_discovered_is_shown_with_a_schema(client: TestClient, uploaded: Uploaded) -> None:
    shown = client.get("/api/v1/catalogue").json()
    assert [family["name"] for family in shown["strategies"]] == sorted(strategies.names())
    assert [family["name"] for family in shown["methods"]] == sorted(methods.names())
    assert {"accuracy", "latency_ms", "size_bytes"} <= {metric["name"] for metric in shown["metrics"]}
    assert "max_accuracy_drop" in shown["limits"]
    assert "max_accuracy" not in shown["limits"]  # a better network would break it
    assert [(task["name"], task["metric"]) for task in shown["tasks"]] == [("classification", "accuracy")]
    assert shown["runtimes"] == [{"name": "simulated", "versions": ["1"]}]
    for family in shown["strategies"] + shown["methods"]:
        assert family["summary"]
        for field in family["settings"].get("properties", {}).values():
            assert field["description"], family["name"]
            assert "default" in field, family["name"]


def test_settings_are_filled_in() -> None:
    (found,) = catalogue.check_named("strategies", [("greedy", {})], catalogue.strategies())
    assert found["name"] == "greedy"
    assert set(found["settings"]) == set(catalogue.schema(catalogue.strategies()["greedy"].settings)["properties"])


def test_a_wrong_setting_is_named_by_its_place() -> None:
    with pytest.raises(InvalidInput) as refused:
        catalogue.check_named("methods", [("int8_ptq", {}), ("filter_prune", {"colour": 1})], catalogue.methods())
    assert (refused.value.field, refused.value.value) == ("methods.1.settings.colour", 1)
