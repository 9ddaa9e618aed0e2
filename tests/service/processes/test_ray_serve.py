"""A whole service on a Ray of its own: jobs are taken while it starts, and outlive all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="module")
def slow(service: Service) -> str:
    """The name of a network and of its data that take a while."""
    service.post("/models", data={"name": "slow"}, files={"file": ("slow.onnx", network(SLOW))})
    service.post("/datasets", data={"name": "slow"}, files={"file": ("slow.npz", data_set(2500, SLOW))})
    return "slow"


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


def test_a_search_outlives_every_part_of_its_ray(service: Service, slow: str) -> None:
    until(lambda: executor(service) == "ok", "Ray")
    body = {"name": "outlives", "model": slow, "dataset": slow, "limits": {"max_macs_ratio": 0.9}, **QUICK}
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


def test_whole_trainings_outlive_their_ray(service: Service, slow: str) -> None:
    """Ray is lost while a sample of the search is trained, and again while the finalist is."""
    until(lambda: executor(service) == "ok", "Ray")
    body = {
        **QUICK,
        "name": "trains",
        "model": slow,
        "dataset": slow,
        "methods": ["weight_prune"],
        "strategies": [{"name": "bisection", "settings": {"samples": 2}}],
        "objective": {"metric": "nonzeros", "goal": "min"},
        "limits": {"max_accuracy_drop": 0.9},
        "budget": {"evaluations": 2, "wall_s": 1200, "finalists": 1},
        "training": {"epochs": 12, "augment": "none"},
    }
    job = service.post("/jobs", json=body)
    folder = service.data_dir / "jobs" / job["id"]

    def lose(when: Callable[[], bool], what: str) -> None:
        """Kill the raylet: whether the conductor outlives that in mid-training or dies of it is all the same here."""
        until(when, what)
        lost = of_ray(service, "raylet/raylet")
        assert lost
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        until(lambda: bool(set(of_ray(service, "raylet/raylet")) - set(lost)), "another Ray")
        until(lambda: executor(service) == "ok", "Ray")

    lose(lambda: any(folder.glob("material/trainings/*.safetensors")), "an epoch of a sample")
    lose(lambda: any(folder.glob("checkpoints/training-12-finalist-*.safetensors")), "an epoch of the finalist")
    ended = service.ended("trains")
    assert (ended["state"], ended["verdict"], ended["failure"]) == ("succeeded", "met", None)
    rows = service.evaluations("trains")
    assert [(row["fidelity"], row["status"], row["searched"]) for row in rows] == [
        ("F4", "completed", True),
        ("F4", "completed", True),
        ("F4", "completed", False),
        ("F5", "completed", False),
    ]
    assert any("continued a sample and had" in text for text in ended["warnings"])
