"""Fronts: what no other evaluation beats, live and under other limits."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded, queue

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.fronts import axes
from service.store import Store, evaluations, job_leases
from service.store.job_leases import Held
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
        job_leases.fence(tx, Held(job, "c1", 1), control={"accuracy": 0.94})
    assert names(client.get(url, params={"max_accuracy_drop": 0.05})) == ["slow", "middle"]
    assert names(client.get(url, params={"max_accuracy_drop": 0.05, "max_latency_ms": 3.0})) == ["middle"]
    for wrong in ({"max_latency_ms": 0}, {"max_latency_ms": "nan"}, {"max_accuracy_drop": 2}):
        assert client.get(url, params=wrong).status_code == 422


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
    assert list(axes(request)) == [("macs", "min")]
