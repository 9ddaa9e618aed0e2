"""A whole service on a Ray of its own: jobs are taken while it starts, and outlive all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from processes import below, command_line
from whole_job import SLOW, Service, data_set, network, until, upload

from hw_profiles.host_lock import LOCK_DIR_VARIABLE

pytestmark = pytest.mark.long
SEARCHED = 250
"""Evaluations of a search that goes on, by an actor that has no Ray any more, until the loss is noticed."""
QUICK = {
    "methods": ["filter_prune"],
    "strategies": ["random"],
    "budget": {"evaluations": 4, "wall_s": 600, "finalists": 1},
    "training": {"epochs": 1, "augment": "none"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("ray")
    found = Service(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        patch.setenv("NETLATHE_EXECUTOR", "ray")
        found.start()
        try:
            yield found
        finally:
            found.end()


def executor(service: Service) -> Any:
    return service.client.get("/readyz").json()["executor"]


def test_the_api_takes_jobs_while_ray_starts(service: Service) -> None:
    assert executor(service) in ("down", "starting")
    upload(service)
    body = {"name": "early", "model": "stripes", "dataset": "stripes", "limits": {"max_macs_ratio": 0.9}, **QUICK}
    assert service.post("/jobs", json=body)["state"] in ("queued", "running")
    until(lambda: executor(service) == "ok", "Ray")
    assert service.ended("early")["state"] == "succeeded"


def of_ray(service: Service, name: str) -> list[int]:
    """Process ids of the conductor's Ray that have this in their command line."""
    return [pid for pid in below(service.conductor()) if name in command_line(pid)]


def test_a_search_outlives_every_part_of_its_ray(service: Service) -> None:
    until(lambda: executor(service) == "ok", "Ray")
    service.post("/models", data={"name": "slow"}, files={"file": ("slow.onnx", network(SLOW))})
    service.post("/datasets", data={"name": "slow"}, files={"file": ("slow.npz", data_set(2500, SLOW))})
    body = {"name": "outlives", "model": "slow", "dataset": "slow", "limits": {"max_macs_ratio": 0.9}, **QUICK}
    service.post("/jobs", json={**body, "budget": {"evaluations": SEARCHED, "wall_s": 600, "finalists": 1}})
    before: list[Any] = []

    def goes_on() -> bool:
        return len(service.evaluations("outlives")) > len(before)

    for victim in ("ray::Actor", "raylet/raylet", "gcs/gcs_server", "ray"):
        until(goes_on, "another evaluation")
        conductor = service.conductor()
        found = of_ray(service, victim)
        assert found, victim
        for pid in found:
            with suppress(ProcessLookupError):  # it died of the death of another
                os.kill(pid, signal.SIGKILL)
        if victim != "ray::Actor":
            until(lambda: executor(service) != "ok", f"the loss of {victim} to be noticed")
        until(lambda: executor(service) == "ok", "Ray")
        assert service.conductor() == conductor, "it brings up another Ray, and does not die of the old one"
        before = service.evaluations("outlives")
        assert len(before) < SEARCHED, "killed in mid-search"
    job = service.ended("outlives")
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)
    rows = service.evaluations("outlives")
    assert [row["id"] for row in rows[: len(before)]] == [row["id"] for row in before]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["status"] for row in rows if row["fidelity"] == "F2"] == ["completed"] * SEARCHED
