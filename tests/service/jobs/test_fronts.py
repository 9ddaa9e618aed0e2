"""Fronts: what no other evaluation beats, live and under other limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from service_world import Uploaded, add_device, queue

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.jobs.fronts import RunningFront, axes
from service.store import Store
from service.store.jobs import evaluations, job_leases
from service.store.jobs.job_leases import Held
from workers.progress import Evaluated

KEY = "latency_ms@dev_1"
POINTS = {"slow": (0.95, 4.0), "middle": (0.90, 2.0), "beaten": (0.89, 3.0), "fast": (0.80, 1.0)}


@pytest.fixture
def job(store: Store, uploaded: Uploaded) -> str:
    """A job with four completed evaluations and a failed one."""
    job_id = queue(store, uploaded, targets=[{"device": "dev_1", "max_latency_ms": 2.5}])
    with store.begin() as tx:
        held = job_leases.claim(tx, "c1", 3600, 5)
        assert held is not None
        for name, (accuracy, latency_ms) in POINTS.items():
            add(tx, held, name, Status.COMPLETED, {"accuracy": accuracy, KEY: latency_ms, "macs": 1.0})
        add(tx, held, "broken", Status.FAILED, {}, "nan")
    return job_id


def add(tx: Any, held: Held, name: str, status: Status, metrics: dict[str, float], reason: str = "") -> None:
    evaluation = Evaluation(Candidate(name, {"a": name}), status, metrics, reason=reason)
    evaluations.add(tx, held, Evaluated("random", evaluation, feasible=metrics.get(KEY, 9.0) <= 2.5))


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["values"]["a"] for item in answer.json()["items"]]


def test_what_is_beaten_in_everything_is_not_on_the_front(client: TestClient, job: str) -> None:
    assert names(client.get(f"/api/v1/jobs/{job}/front")) == ["slow", "middle", "fast"]
    shown = client.get(f"/api/v1/jobs/{job}/evaluations").json()["items"]
    assert [item["on_front"] for item in shown] == [True, True, False, True, False]
    assert [item["feasible"] for item in shown] == [False, True, False, True, False]
    assert shown[4]["reason"] == "nan"


@dataclass(frozen=True)
class Row:
    id: str
    metrics: Mapping[str, float]
    status: str = "completed"
    searched: bool = True
    fidelity: str = "F2"


@pytest.mark.parametrize("devices", [1, 2])
@given(
    levels=st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=25),  # coarse: many ties
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=25),
)
def test_a_front_kept_while_evaluations_come_in_is_the_recomputed_one(
    devices: int, levels: list[tuple[int, int, int]], parts: list[int]
) -> None:
    names = [f"dev_{number}" for number in range(devices)]
    request = {"objective": {"metric": "accuracy", "goal": "max"}, "targets": [{"device": name} for name in names]}
    keys = [key for key, _ in axes(request)]
    rows = [Row(f"e{i}", dict(zip(keys, map(float, point), strict=False))) for i, point in enumerate(levels)]
    running, begun = RunningFront(axes(request)), 0
    while begun < len(rows):
        end = begun + parts[begun % len(parts)]
        running, begun = running.plus(rows[begun:end]), end
        assert running.ids == by_definition(rows[:begun], request)


def by_definition(rows: Sequence[Row], request: Mapping[str, Any]) -> frozenset[str]:
    """Those that no other one is as good as in everything and better than in something."""
    signs = {key: 1.0 if goal == "min" else -1.0 for key, goal in axes(request)}
    costs = {row.id: tuple(sign * row.metrics[key] for key, sign in signs.items()) for row in rows}
    beaten = {
        name
        for name, own in costs.items()
        for other in costs.values()
        if other != own and all(a <= b for a, b in zip(other, own, strict=True))
    }
    return frozenset(costs.keys() - beaten)


def test_other_limits_give_the_front_as_it_would_be(client: TestClient, store: Store, job: str) -> None:
    url = f"/api/v1/jobs/{job}/front"
    assert names(client.get(url, params={"max_latency_ms": 3.0})) == ["middle", "fast"]
    assert names(client.get(url, params={"max_latency_ms": 0.5})) == []
    early = client.get(url, params={"max_accuracy_drop": 0.05})
    assert (early.status_code, early.json()["code"]) == (409, "state")
    with store.begin() as tx:
        job_leases.fence(tx, Held(job, "c1", 1), original={"accuracy": 0.97})
    assert names(client.get(url, params={"max_accuracy_drop": 0.05})) == ["slow"]
    with store.begin() as tx:
        job_leases.fence(tx, Held(job, "c1", 1), original={"accuracy": 0.94}, control={"accuracy": 0.97})
    assert names(client.get(url, params={"max_accuracy_drop": 0.05})) == ["slow", "middle"]
    assert names(client.get(url, params={"max_accuracy_drop": 0.05, "max_latency_ms": 3.0})) == ["middle"]
    for wrong in ({"max_latency_ms": 0}, {"max_latency_ms": "nan"}, {"max_accuracy_drop": 2}):
        assert client.get(url, params=wrong).status_code == 422


def test_finalists_are_other_quantities_and_take_no_part(client: TestClient, store: Store, job: str) -> None:
    with store.begin() as tx:
        best = Evaluation(Candidate("f", {"a": "f"}, fidelity="F5"), Status.COMPLETED, {"accuracy": 0.99, KEY: 0.5})
        evaluations.add(tx, Held(job, "c1", 1), Evaluated("random", best, feasible=True))
    assert names(client.get(f"/api/v1/jobs/{job}/front")) == ["slow", "middle", "fast"]
    assert names(client.get(f"/api/v1/jobs/{job}/front", params={"max_latency_ms": 3.0})) == ["middle", "fast"]


def test_a_front_comes_in_pages_in_the_order_asked_for(client: TestClient, job: str) -> None:
    url = f"/api/v1/jobs/{job}/front"
    assert names(client.get(url, params={"sort": "-number"})) == ["fast", "middle", "slow"]
    last = client.get(url, params={"page": 2, "page_size": 2})
    assert names(last) == ["fast"]
    assert [last.json()[name] for name in ("total", "page", "page_size")] == [3, 2, 2]
    assert all(item["on_front"] for item in last.json()["items"])
    assert client.get(url, params={"sort": "accuracy"}).status_code == 422


def test_evaluations_are_followed_by_number(client: TestClient, job: str) -> None:
    url = f"/api/v1/jobs/{job}/evaluations"
    page = client.get(url, params={"since": 2, "page_size": 2}).json()
    assert ([item["number"] for item in page["items"]], page["total"]) == ([3, 4], 3)
    newest = client.get(url, params={"sort": "-number", "page_size": 1}).json()["items"]
    assert newest[0]["number"] == 5
    assert client.get(url, params={"sort": "accuracy"}).status_code == 422


def test_without_a_device_macs_take_the_place_of_latency() -> None:
    request = {"objective": {"metric": "accuracy", "goal": "max"}, "targets": []}
    assert list(axes(request)) == [("accuracy", "max"), ("macs", "min")]
    request["objective"] = {"metric": "macs", "goal": "min"}
    assert list(axes(request)) == [("accuracy", "max"), ("macs", "min")]


@pytest.mark.parametrize(
    ("methods", "cost"), [(["filter_prune"], "macs"), (["filter_prune", "weight_prune"], "stored_bytes"), ([], "macs")]
)
def test_the_axis_without_a_device_is_for_the_methods(methods: list[str], cost: str) -> None:
    request = {"objective": {"metric": "accuracy", "goal": "max"}, "targets": []}
    named = [{"name": name} for name in methods]
    assert list(axes({**request, "methods": named})) == [("accuracy", "max"), (cost, "min")]


ON_TWO = {
    "big": (0.95, 4.0, 9.0),
    "fast here": (0.90, 1.0, 8.0),
    "fast there": (0.90, 3.0, 2.0),
    "beaten": (0.8, 3.5, 3.0),
}


@pytest.fixture
def on_two_devices(store: Store, uploaded: Uploaded) -> str:
    """A job on two devices that disagree about which network is fast."""
    with store.begin() as tx:
        add_device(tx, "dev_2", "pi5")
    targets = [{"device": "dev_1", "max_latency_ms": 2.5}, {"device": "dev_2", "max_latency_ms": 8.5}]
    job_id = queue(store, uploaded, targets=targets)
    with store.begin() as tx:
        held = job_leases.claim(tx, "c1", 3600, 5)
        assert held is not None
        for name, (accuracy, here_ms, there_ms) in ON_TWO.items():
            metrics = {"accuracy": accuracy, KEY: here_ms, "latency_ms@dev_2": there_ms}
            add(tx, held, name, Status.COMPLETED, metrics)
    return job_id


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["big", "fast here", "fast there"]),
        ({"device": "dev_1"}, ["big", "fast here"]),
        ({"device": "pi5-simulated-t1-fp32"}, ["big", "fast there"]),
        ({"device": "dev_2", "max_latency_ms": 8.5}, ["fast there"]),
        ({"device": "dev_1", "max_latency_ms": 3.5}, ["fast here"]),
        ({"max_latency_ms": 8.5}, ["fast here", "fast there"]),
    ],
)
def test_each_device_has_a_front_of_its_own(
    query: dict[str, Any], found: list[str], client: TestClient, on_two_devices: str
) -> None:
    assert names(client.get(f"/api/v1/jobs/{on_two_devices}/front", params=query)) == found


def test_a_front_of_a_device_that_is_no_target_is_refused_with_the_devices_of_the_job(
    client: TestClient, on_two_devices: str
) -> None:
    answer = client.get(f"/api/v1/jobs/{on_two_devices}/front", params={"device": "dev_9"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("device", "dev_9")
    assert "local-simulated-t1-fp32, pi5-simulated-t1-fp32" in error["message"]
