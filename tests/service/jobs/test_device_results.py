"""The result on each device of a job with several devices: in the API, on the job page and in the terminal."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded, add_device, queue

import netlathe
from netlathe.reading import read
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.conducting.store_ports import StorePorts
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, events
from service.store.jobs import evaluations, job_leases
from service.verbs.report import print_networks
from workers.progress import Evaluated, SummarisedDevices

LATENCY_MS = {"dev_1": {"measured": 1.5}, "dev_2": {"measured": 7.0}}


@pytest.fixture
def ports(store: Store, settings: Settings, uploaded: Uploaded) -> StorePorts:
    """The ports of a running job on two devices."""
    with store.begin() as tx:
        add_device(tx, "dev_2", "pi5")
    targets = [{"device": "dev_1", "max_latency_ms": 2.0}, {"device": "dev_2", "max_latency_ms": 5.0}]
    queue(store, uploaded, targets=targets)
    with store.begin() as tx:
        held = job_leases.claim(tx, "c1", 1e6, 5)
    assert held is not None
    blobs, stopping = Blobs(settings.data_dir), threading.Event()
    return StorePorts(store, blobs, held, settings.data_dir, offline_s=3600.0, stopping=stopping)


def row(device: str, verdict: str, file: str) -> dict[str, Any]:
    network = {"evaluation_id": "c0-timed", "strategy": "tpe", "accuracy": 0.91, "latency_ms": LATENCY_MS, "macs": 10}
    return {"device": device, "verdict": verdict, "network": network, "file": file}


def judged(ports: StorePorts, store: Store) -> tuple[str, str]:
    """Judge one network, which meets the limit of one device; the ids of the job and of the evaluation."""
    file = Candidate("c0-timed", {"a": 1}, parents=("c0",), fidelity="F5", after_search=True)
    ports.emit(
        Evaluated("tpe", Evaluation(file, Status.COMPLETED, {"accuracy": 0.91})),
        SummarisedDevices([row("dev_1", "met", "net.onnx"), row("dev_2", "missed", "net-pi5.onnx")]),
    )
    job_id = ports._held.job_id
    with store.read() as tx:
        timed = evaluations.of_candidate(tx, job_id, "c0-timed")
        assert timed is not None
        return job_id, timed.id


def test_a_job_tells_the_result_on_each_device(client: TestClient, store: Store, ports: StorePorts) -> None:
    job = ports._held.job_id
    assert client.get(f"/api/v1/jobs/{job}").json()["devices"] is None
    _, evaluation = judged(ports, store)
    answer = client.get(f"/api/v1/jobs/{job}").json()
    told = [(each["device"], each["verdict"], each["file"]) for each in answer["devices"]]
    assert told == [("dev_1", "met", "net.onnx"), ("dev_2", "missed", "net-pi5.onnx")]
    assert {each["network"]["evaluation_id"] for each in answer["devices"]} == {evaluation}
    assert answer["devices"][1]["network"]["latency_ms"]["dev_2"]["measured"] == 7.0
    with store.read() as tx:
        assert any("devices" in event.data for event in events.after(tx, 0, 1000))


def test_the_job_page_shows_each_device_by_its_own_limits(
    client: TestClient, store: Store, ports: StorePorts, user_token: str
) -> None:
    assert client.post("/api/v1/session", json={"token": user_token}).status_code == 201
    job, _ = judged(ports, store)
    text = client.get(f"/jobs/{job}").text
    own = text[text.index("Each device by its own limits") :]
    assert own.index("net.onnx") < own.index("pi5-simulated-t1-fp32 <span") < own.index("net-pi5.onnx")
    assert '<span class="tag missed">missed</span>' in own
    assert '<select id="device"' in text


def test_the_terminal_shows_each_device_by_its_own_limits(
    client: TestClient, store: Store, ports: StorePorts, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id, _ = judged(ports, store)
    job = read(netlathe.Job, client.get(f"/api/v1/jobs/{job_id}").json())
    assert job.devices is not None
    assert [each.network.latency_ms["dev_2"].measured for each in job.devices] == [7.0, 7.0]
    print_networks(job)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("local-simulated-t1-fp32: met (tpe)") for line in lines)
    assert any(line.startswith("pi5-simulated-t1-fp32: missed (tpe)") for line in lines)


def test_too_few_finalists_for_the_devices_are_told(client: TestClient, store: Store, uploaded: Uploaded) -> None:
    with store.begin() as tx:
        add_device(tx, "dev_2", "pi5")
    both = [{"device": device, "max_latency_ms": 5.0} for device in ("dev_1", "dev_2")]
    body = {"model": "net", "dataset": "digits", "targets": both}
    says = "budget.finalists: 1 trained for 2 devices, so some devices get no network of their own"
    assert says in client.post("/api/v1/jobs", json={**body, "budget": {"finalists": 1}}).json()["warnings"]
    assert says not in client.post("/api/v1/jobs", json={**body, "budget": {"finalists": 2}}).json()["warnings"]
