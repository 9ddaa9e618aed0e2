"""From REST to the file and back, through every process: server, conductor, evaluator, agent; and with each killed."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from processes import command_line
from whole_job import Service, accuracy, agent, network, probed, submit, until, upload

from hw_profiles.host_lock import LOCK_DIR_VARIABLE


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("whole")
    found = Service(folder / "data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        found.start()
        try:
            upload(found)
            yield found
        finally:
            found.end()
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def device(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with agent(service, tmp_path_factory.mktemp("agent") / "state") as name:
        service.post(f"/devices/{name}/table", json=probed())
        yield name


def test_a_network_becomes_a_smaller_file_that_was_measured(service: Service, device: str) -> None:
    submit(service, "first", device)
    job = service.ended("first")
    assert (job["state"], job["verdict"], job["failure"]) == ("succeeded", "met", None)

    rows = service.evaluations("first")
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row["fidelity"] == "F2" for row in rows) == 4
    best, original = job["best"], job["original"]
    (chosen,) = [row for row in rows if row["id"] == best["evaluation_id"]]
    assert chosen["feasible"] is True
    ((at, timed),) = best["latency_ms"].items()
    assert chosen["metrics"][f"latency_ms@{at}"] == timed["measured"]
    assert timed["measured_high"] <= 0.85 * original["latency_ms"][at]["measured"]
    assert best["macs"] < original["macs"]

    artifacts = {item["kind"]: item for item in service.get("/jobs/first/artifacts")["items"]}
    assert set(artifacts) == {"onnx", "report_html", "report_json", "manifest"}
    file = service.client.get(f"/api/v1/artifacts/{artifacts['onnx']['id']}/content").content
    assert hashlib.sha256(file).hexdigest() == artifacts["onnx"]["sha256"]
    assert len(file) == best["size_bytes"] < original["size_bytes"]
    assert accuracy(file) == pytest.approx(best["test_accuracy"], abs=0.006)  # one image may sit on a tie

    # What this job measured tells the next one that its limit cannot be met.
    floor_ms = service.get(f"/models/stripes/preflight?device={device}")["floor_ms"]
    body = {"model": "stripes", "dataset": "stripes", "targets": [{"device": device, "max_latency_ms": floor_ms / 2}]}
    refused = service.client.post("/api/v1/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "below_floor"), refused.text
    assert refused.json()["errors"][0]["message"].endswith(f"the nearest possible is {floor_ms:.4g}")


def searched(service: Service, name: str, count: int) -> list[Any]:
    """What is recorded when at least so many evaluations are, in mid-search."""
    until(lambda: len(service.evaluations(name)) >= count, f"{count} evaluations")
    return service.evaluations(name)


LASTING = ("id", "number", "strategy", "status", "fidelity", "values", "metrics", "elapsed_s")


def check_search(service: Service, name: str, *before: list[Any]) -> None:
    """The job ended well, what was recorded before each death is as it was, and nothing was done twice."""
    job = service.ended(name)
    assert (job["state"], job["failure"]) == ("succeeded", None)
    rows = service.evaluations(name)
    for known in before:
        assert [[row[key] for key in LASTING] for row in rows[: len(known)]] == [
            [row[key] for key in LASTING] for row in known
        ]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    paid = [row for row in rows if row["fidelity"] == "F2"]
    assert [row["status"] for row in paid] == ["completed"] * 30
    assert len(service.get(f"/jobs/{name}/artifacts")["items"]) == 4


def test_kill_9_of_an_evaluator_and_then_of_the_conductor_in_mid_search(service: Service, device: str) -> None:
    submit(service, "survivor", device, evaluations=30)
    first = searched(service, "survivor", 2)
    dead = service.evaluator()
    os.kill(dead, signal.SIGKILL)
    second = searched(service, "survivor", len(first) + 2)
    conductor, evaluator = service.conductor(), service.evaluator()
    assert evaluator != dead
    os.kill(conductor, signal.SIGKILL)
    assert len(second) < 30, "the conductor died in mid-search"
    until(lambda: not command_line(evaluator), "the dead conductor's evaluator to end")
    check_search(service, "survivor", first, second)
    assert service.conductor() != conductor


def test_kill_9_of_the_server_loses_nothing_that_it_acknowledged(service: Service, device: str) -> None:
    file = network()
    model = service.post("/models", data={"name": "kept"}, files={"file": ("kept.onnx", file)})
    job = submit(service, "server-dies", device)
    service.kill()
    service.start()
    content = service.client.get(f"/api/v1/models/{model['id']}/content").content
    assert hashlib.sha256(content).hexdigest() == hashlib.sha256(file).hexdigest() == model["sha256"]
    assert submit(service, "server-dies", device)["id"] == job["id"]  # the same key: the same job, not another
    assert service.get("/jobs")["items"][0]["id"] == job["id"]
    ended = service.ended("server-dies")
    assert (ended["state"], ended["verdict"]) == ("succeeded", "met")
