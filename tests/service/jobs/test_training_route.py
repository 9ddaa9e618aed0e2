"""The curves of training: each epoch is an event and a row of the job's training."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.conducting.store_ports import StorePorts
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store
from service.store.jobs import job_leases
from workers.progress import EpochTrained


@pytest.fixture
def ports(store: Store, settings: Settings, queued: str) -> StorePorts:
    with store.begin() as tx:
        held = job_leases.claim(tx, "c1", 1e6, 5)
    assert held is not None
    assert held.job_id == queued
    work_dir = settings.data_dir / "jobs" / queued
    work_dir.mkdir(parents=True)
    return StorePorts(store, Blobs(settings.data_dir), held, work_dir, offline_s=60.0, stopping=threading.Event())


def epoch(network: str, number: int, score: float | None, metric: str = "accuracy") -> EpochTrained:
    return EpochTrained(network, number, 3, 1.5 / number, metric, score, 2.0)


def items(client: TestClient, job: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/jobs/{job}/training")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_epochs_are_listed_by_network_each_once(client: TestClient, queued: str, ports: StorePorts) -> None:
    assert items(client, queued) == []
    ports.emit(epoch("control", 1, 0.5), epoch("finalist-a", 1, None), epoch("control", 2, 0.7))
    ports.emit(epoch("control", 1, 0.6))
    found = items(client, queued)
    assert [(each["network"], each["epoch"], each["accuracy"]) for each in found] == [
        ("control", 1, 0.6),
        ("control", 2, 0.7),
        ("finalist-a", 1, None),
    ]
    assert found[1] == {
        "network": "control",
        "epoch": 2,
        "epochs": 3,
        "loss": 0.75,
        "accuracy": 0.7,
        "elapsed_s": 2.0,
    }


def test_an_epoch_is_an_event_of_the_job(client: TestClient, queued: str, ports: StorePorts) -> None:
    ports.emit(epoch("control", 1, 0.5))
    answer = client.get("/api/v1/events.json", params={"topics": f"job:{queued}", "since": 0}).json()
    (told,) = [each["data"] for each in answer["items"] if each["type"] == "training.epoch"]
    assert (told["network"], told["epoch"], told["accuracy"]) == ("control", 1, 0.5)


def test_another_task_has_its_own_metric(client: TestClient, queued: str, ports: StorePorts) -> None:
    ports.emit(epoch("control", 1, 0.5, "mean_iou"))
    (found,) = items(client, queued)
    assert found["mean_iou"] == 0.5


def test_a_job_that_is_not_there(client: TestClient) -> None:
    assert client.get("/api/v1/jobs/nowhere/training").status_code == 404
