"""What a run asks of devices: rows, measurements, and patience with a device that is away."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from agent_calls import HandAgent, bearer, conv, fill, network_result
from fastapi.testclient import TestClient
from job_worlds import until
from patience import PATIENCE_S
from service_world import HandClock, Uploaded, queue

from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.testing import small_network
from hw_profiles.timing.protocol import BurstProtocol, Failure
from hw_profiles.wire.arrays import pack
from service.conducting.store_ports import StorePorts
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, events
from service.store.devices import devices
from service.store.devices.measurements import Measurement
from service.store.devices.work_items import WorkItem
from service.store.jobs import job_leases, job_states, jobs
from service.store.jobs.jobs import Job
from workers.errors import DeviceOffline, LeaseLost, MeasurementFailed
from workers.progress import Calibrated, Checkpointed, Learned, Phased, Summarised, Warned
from workers.running.context import Halted

HOUR_S = 3600.0


@pytest.fixture
def agent(anonymous: TestClient, store: Store) -> HandAgent:
    return HandAgent(anonymous, store)


@pytest.fixture
def ports(store: Store, settings: Settings, uploaded: Uploaded, agent: HandAgent) -> StorePorts:
    """The ports of a running job with a target on the agent's device."""
    queue(store, uploaded, targets=[{"device": agent.device_id, "max_latency_ms": 1.0}])
    return held_ports(store, settings)


def held_ports(store: Store, settings: Settings, stopping: threading.Event | None = None) -> StorePorts:
    with store.begin() as tx:
        held = job_leases.claim(tx, "c1", 1e6, 5)
    assert held is not None
    work_dir = settings.data_dir / "jobs" / held.job_id
    work_dir.mkdir(parents=True, exist_ok=True)
    blobs = Blobs(settings.data_dir)
    return StorePorts(store, blobs, held, work_dir, offline_s=HOUR_S, stopping=stopping or threading.Event())


def the_job(store: Store) -> Job:
    with store.read() as tx:
        (job,) = tx.session.execute(jobs.selected()).scalars().all()
        return job


@contextmanager
def background(work: Any, *arguments: Any) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work, *arguments)


def measurement_of(store: Store) -> Measurement | None:
    with store.read() as tx:
        return tx.session.query(Measurement).one_or_none()


def test_rows_are_asked_for_and_awaited(ports: StorePorts, agent: HandAgent) -> None:
    ops = [conv(8), conv(16)]
    ports.fill(agent.device_id, ops, [1.0, 2.0])
    ports.fill(agent.device_id, ops, [1.0, 2.0])
    assert ports.wait(agent.device_id, 0.0) == 2
    with background(ports.wait, agent.device_id, 60.0) as news:
        agent.finish(agent.lease(), {ops[0].key: 8.0, ops[1].key: 16.0})
        assert news.result(PATIENCE_S) < 2
    assert ports.wait(agent.device_id, 60.0) == 0
    table = ports.table(agent.device_id)
    assert table.rows[ops[1].key].latency_us == pytest.approx(16.0)


def next_lease(agent: HandAgent, kinds: Sequence[str] | None = None) -> dict[str, Any]:
    """The agent's next lease, as soon as there is work of these kinds; the default is what `HandAgent.ask` offers."""
    found: dict[str, Any] = {}

    def ask() -> bool:
        body = {"agent_id": agent.id, "device_ids": agent.device_ids, "kinds": kinds}
        answer = agent.ask() if kinds is None else agent.call("POST", "/leases", body)
        if answer.status_code == 200:
            found.update(answer.json())
        return bool(found)

    until(ask)
    return found


def files(folder: Path, *names: str) -> dict[str, Path]:
    """Files that pass for networks."""
    made = {name: folder / f"{name}.onnx" for name in names}
    for name, path in made.items():
        path.write_bytes(name.encode())
    return made


def test_networks_are_measured_together(ports: StorePorts, agent: HandAgent, tmp_path: Path) -> None:
    networks = files(tmp_path, "original", "best")
    with background(ports.measure, agent.device_id, networks, BurstProtocol()) as samples:
        lease = next_lease(agent)
        assert len(lease["items"]) == 2
        for item in lease["items"]:
            content = agent.call("GET", f"/leases/{lease['id']}/files/{item['sha256']}").content
            latency_us = {b"original": 900.0, b"best": 400.0}[content]
            assert agent.put(lease, item["key"], network_result(lease["epoch"], latency_us)).status_code == 200
        assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200
        found = samples.result(PATIENCE_S)
    assert found["original"].timing().quiet_us == pytest.approx(900.0)
    assert found["best"].timing().quiet_us == pytest.approx(400.0)


def test_one_lease_tells_every_network_that_does_not_run_there_and_times_the_others_together(
    ports: StorePorts, agent: HandAgent, tmp_path: Path
) -> None:
    networks = files(tmp_path, "original", "odd", "best", "odder")
    with background(ports.measure, agent.device_id, networks, BurstProtocol()) as samples:
        lease = next_lease(agent)
        for item in lease["items"]:
            name = name_of(item, networks)
            refusal = {"epoch": lease["epoch"], "failure": "error", "reason": f"no kernel for {name}"}
            answer = refusal if name.startswith("odd") else network_result(lease["epoch"], 900.0)
            assert agent.put(lease, item["key"], answer).status_code == 200
        assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200
        found = samples.result(PATIENCE_S)
    assert agent.ask().status_code == 204, "no second lease"
    assert found["odd"] == Failure("odd", "no kernel for odd", "error")
    assert found["odder"] == Failure("odder", "no kernel for odder", "error")
    assert found["original"].timing().quiet_us == found["best"].timing().quiet_us == pytest.approx(900.0)


def name_of(item: dict[str, Any], networks: dict[str, Path]) -> str:
    """The name of the network of an item of a lease."""
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): name for name, path in networks.items()}
    return digests[item["sha256"]]


def test_networks_beside_one_that_crashes_are_timed_again_together(
    ports: StorePorts, agent: HandAgent, tmp_path: Path
) -> None:
    networks = files(tmp_path, "original", "crash", "odd", "best")
    with background(ports.measure, agent.device_id, networks, BurstProtocol()) as samples:
        lease = next_lease(agent)
        for item in lease["items"]:
            kind = {"crash": "crash", "odd": "error"}.get(name_of(item, networks))
            failure = {"epoch": lease["epoch"], "failure": kind, "reason": "signal 11"}
            agent.put(lease, item["key"], failure if kind else network_result(lease["epoch"], 1.0))
        assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200
        again = next_lease(agent)
        assert {name_of(item, networks) for item in again["items"]} == {"original", "best"}
        for item in again["items"]:
            agent.put(again, item["key"], network_result(again["epoch"], 900.0))
        assert agent.call("POST", f"/leases/{again['id']}/complete", {"epoch": again["epoch"]}).status_code == 200
        found = samples.result(PATIENCE_S)
    assert {name: each.kind for name, each in found.items() if isinstance(each, Failure)} == {
        "crash": "crash",
        "odd": "error",
    }
    assert found["original"].timing().quiet_us == found["best"].timing().quiet_us == pytest.approx(900.0)


def test_a_measurement_of_which_every_network_is_refused_has_no_samples(
    ports: StorePorts, agent: HandAgent, tmp_path: Path
) -> None:
    with background(ports.measure, agent.device_id, files(tmp_path, "odd"), BurstProtocol()) as samples:
        lease = next_lease(agent)
        failure = {"epoch": lease["epoch"], "failure": "error", "reason": "no kernel for Odd"}
        agent.put(lease, lease["items"][0]["key"], failure)
        assert samples.result(PATIENCE_S) == {"odd": Failure("odd", "no kernel for Odd", "error")}


def test_a_network_that_cannot_be_converted_does_not_keep_the_others(ports: StorePorts, agent: HandAgent) -> None:
    models, shown = [b"odd", b"good"], {"image": np.zeros((1, 3, 8, 8), np.float32)}
    made, outputs = b"an engine's own file", pack({"logits": np.zeros((1, 10), np.float32)})
    with background(ports.converted, agent.device_id, models, shown, 60.0) as answers:
        lease = next_lease(agent, [*KINDS, "check"])
        for item in lease["items"]:
            if item["sha256"] == hashlib.sha256(b"odd").hexdigest():
                answer: dict[str, Any] = {"failure": "error", "reason": "no operator Odd"}
            else:
                digests = [hashlib.sha256(content).hexdigest() for content in (made, outputs)]
                for digest, content in zip(digests, (made, outputs), strict=True):
                    path = f"/api/v1/leases/{lease['id']}/files/{digest}"
                    agent.http.put(path, files={"file": ("file", content)}, headers=bearer(agent.secret))
                answer = {"converted": {"sha256": digests[0], "outputs_sha256": digests[1]}}
            assert agent.put(lease, item["key"], {"epoch": lease["epoch"], **answer}).status_code == 200
        odd, good = answers.result(PATIENCE_S)
    assert isinstance(odd, Failure)
    assert odd.reason == "no operator Odd"
    assert good.file == made


def test_a_run_that_is_stopped_waits_for_no_measurement(
    ports: StorePorts, store: Store, agent: HandAgent, tmp_path: Path
) -> None:
    with background(ports.measure, agent.device_id, files(tmp_path, "big"), BurstProtocol()) as samples:
        until(lambda: measurement_of(store) is not None)
        with store.begin() as tx:
            job_states.cancel(tx, jobs.get(tx, the_job(store).id))
        with pytest.raises(Halted, match="cancelled"):
            samples.result(PATIENCE_S)
    measurement = measurement_of(store)
    assert measurement is not None
    assert measurement.state == "failed"
    assert agent.ask().status_code == 204


def test_a_job_says_that_it_waits_and_gives_up_after_an_hour(
    ports: StorePorts, store: Store, agent: HandAgent, clock: HandClock
) -> None:
    ports.fill(agent.device_id, [conv(8)], [1.0])
    assert ports.wait(agent.device_id, 0.0) == 1
    assert the_job(store).waiting_for is None
    clock.advance(60)
    ports.wait(agent.device_id, 0.0)
    waiting = the_job(store).waiting_for
    assert waiting == {"device": agent.device_id, "since": clock.now.isoformat()}
    clock.advance(HOUR_S - 1)
    ports.wait(agent.device_id, 0.0)
    assert the_job(store).waiting_for == waiting
    agent.beat()
    ports.wait(agent.device_id, 0.0)
    assert the_job(store).waiting_for is None
    clock.advance(60)
    ports.wait(agent.device_id, 0.0)
    clock.advance(HOUR_S)
    with pytest.raises(DeviceOffline, match="has been offline for 3600 s"):
        ports.wait(agent.device_id, 0.0)


def test_a_deleted_device_is_not_waited_for(ports: StorePorts, store: Store, agent: HandAgent) -> None:
    with store.begin() as tx:
        tx.session.delete(devices.get(tx, agent.device_id))
    with pytest.raises(DeviceOffline, match="deleted"):
        ports.wait(agent.device_id, 0.0)


def test_a_conductor_that_ends_wants_a_pause(store: Store, settings: Settings, queued: str) -> None:
    stopping = threading.Event()
    ports = held_ports(store, settings, stopping)
    assert ports.signal() == "continue"
    stopping.set()
    assert ports.signal() == "pause"


def test_what_was_learned_of_a_device_stays_with_it(ports: StorePorts, agent: HandAgent) -> None:
    calibration = Calibration(a_us=5.0, b=1.1, networks=7)
    classes = KernelClasses()
    ports.emit(Calibrated(agent.device_id, 1, calibration.to_json()), Learned(agent.device_id, classes.to_json()))
    table = ports.table(agent.device_id)
    assert (table.calibration.a_us, table.calibration.b, table.classes) == (5.0, 1.1, classes)


def test_a_run_finds_again_what_it_left(store: Store, settings: Settings, queued: str) -> None:
    ports = held_ports(store, settings)
    assert ports.recorded().phase is None
    state = ports.work_dir / "checkpoints" / "state.json"
    state.parent.mkdir()
    state.write_text("{}")
    ports.emit(Checkpointed("state", state), Phased("search", 3, 10, 1.5, spent_s=40.0))
    ports.emit(Phased("train", 0, 1))
    found = ports.recorded()
    assert (found.phase, found.spent_s) == ("train", 40.0)
    assert found.checkpoints["state"].samefile(state)
    with pytest.raises(ValueError, match="subpath"):
        ports.emit(Checkpointed("elsewhere", settings.data_dir / "netlathe.db"))


def test_progress_never_goes_back(store: Store, settings: Settings, queued: str) -> None:
    ports = held_ports(store, settings)
    ports.emit(Phased("search", 3, 10, 1.5, spent_s=40.0))
    for behind in (Phased("profile", 0, 4), Phased("search", 0, 10, 9.0, spent_s=41.0)):  # as a resumed run says
        ports.emit(behind)
        job = the_job(store)
        assert (job.phase, job.done, job.total, job.eta_s) == ("search", 3, 10, None)
    assert job.spent_s == 41.0
    ports.emit(Phased("search", 4, 10, 2.0))
    assert (the_job(store).done, the_job(store).eta_s) == (4, 2.0)
    ports.emit(Phased("train", 0, 3))
    assert (the_job(store).phase, the_job(store).done) == ("train", 0)


def test_a_transaction_that_fails_keeps_nothing_of_its_messages(store: Store, settings: Settings, queued: str) -> None:
    ports = held_ports(store, settings)
    with store.begin() as tx:
        job_leases.end(tx, ports._held, "queued")
    with pytest.raises(LeaseLost):
        ports.emit(Phased("search", 1, 2), Summarised("best", {"accuracy": 1.0}))
    job = the_job(store)
    assert (job.phase, job.best) == (None, None)
    ports.lost.set()
    with pytest.raises(LeaseLost):
        ports.signal()


def test_a_slot_can_be_emptied(store: Store, settings: Settings, queued: str) -> None:
    ports = held_ports(store, settings)
    ports.emit(Summarised("best", {"accuracy": 1.0}))
    assert the_job(store).best == {"accuracy": 1.0}
    ports.emit(Summarised("best", None))
    assert the_job(store).best is None
    with store.read() as tx:
        told = [event.data for event in events.after(tx, 0, 1000) if "best" in event.data]
    assert told[-1]["best"] is None


def test_a_warning_is_kept_once(store: Store, settings: Settings, queued: str) -> None:
    ports = held_ports(store, settings)
    before = list(the_job(store).warnings)
    ports.emit(Warned("The interval crosses the limit."))
    ports.emit(Warned("The interval crosses the limit."))
    assert the_job(store).warnings == [*before, "The interval crosses the limit."]


def queued(store: Store, device_id: str) -> set[str]:
    """Keys of the blocks that wait for an agent."""
    with store.read() as tx:
        rows = tx.session.query(WorkItem).filter_by(device_id=device_id, state="queued").all()
        return {row.key for row in rows}


@pytest.mark.parametrize("ending", ["cancelled", "failed", "succeeded"])
def test_the_blocks_of_a_job_that_has_ended_leave_the_queue(
    ending: job_states.State, ports: StorePorts, agent: HandAgent, store: Store, settings: Settings, uploaded: Uploaded
) -> None:
    own, shared, asked = conv(8), conv(16), conv(24)
    target = {"device": agent.device_id, "max_latency_ms": 1.0}
    queue(store, uploaded, targets=[target])
    other = held_ports(store, settings)
    ports.fill(agent.device_id, [own, shared, asked], [3.0, 2.0, 1.0])
    other.fill(agent.device_id, [shared], [1.0])
    fill(store, agent.device_id, [asked])  # by a user
    with store.begin() as tx:
        job_leases.end(tx, ports._held, ending)
    assert queued(store, agent.device_id) == {shared.key, asked.key}
    with store.begin() as tx:
        job_leases.end(tx, other._held, ending)
    assert queued(store, agent.device_id) == {asked.key}


def test_a_queued_job_that_is_cancelled_withdraws_what_it_asked_for(
    ports: StorePorts, agent: HandAgent, store: Store
) -> None:
    ports.fill(agent.device_id, [conv(8)], [1.0])
    with store.begin() as tx:
        job_leases.end(tx, ports._held, "queued")
    assert len(queued(store, agent.device_id)) == 1, "it will go on"
    with store.begin() as tx:
        job_states.cancel(tx, jobs.get(tx, ports._held.job_id))
    assert not queued(store, agent.device_id)


def test_an_agent_gives_up_blocks_that_nothing_waits_for(ports: StorePorts, agent: HandAgent, store: Store) -> None:
    ports.fill(agent.device_id, [conv(8), conv(16)], [1.0, 2.0])
    lease = agent.lease()
    beat = {"state": "working", "lease_id": lease["id"]}
    assert agent.call("POST", f"/agents/{agent.id}/heartbeat", beat).json() == {"action": "continue"}
    with store.begin() as tx:
        job_leases.end(tx, ports._held, "cancelled")
    assert agent.call("POST", f"/agents/{agent.id}/heartbeat", beat).json()["action"] == "cancel"
    back = {"epoch": lease["epoch"], "error_class": "cancelled", "detail": ""}
    assert agent.call("POST", f"/leases/{lease['id']}/fail", back).status_code in (200, 204)
    assert not queued(store, agent.device_id)
    assert agent.ask().status_code == 204


KINDS = ["block", "network", "fusion"]
SETS = [["node of c0", "node of r0"], ["node of c1", "node of a1", "node of r1"]]


def fusion_lease(agent: HandAgent) -> dict[str, Any]:
    """The agent's next lease, as soon as it is asked what it fuses."""
    return next_lease(agent, KINDS)


def told(agent: HandAgent, **answer: Any) -> None:
    """The agent takes the question and answers it."""
    lease = fusion_lease(agent)
    for item in lease["items"]:
        assert agent.put(lease, item["key"], {"epoch": lease["epoch"], **answer}).status_code == 200
    assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200


def test_a_device_tells_what_it_fuses_once_for_each_wiring(ports: StorePorts, agent: HandAgent) -> None:
    models = [small_network(), small_network()]
    with background(ports.fused, agent.device_id, models, 60.0) as sets:
        told(agent, fused=SETS)
        found = sets.result(PATIENCE_S)
    assert list(found) == [tuple(map(frozenset, SETS))] * 2
    assert ports.fused(agent.device_id, models[:1], 0.0) == [tuple(map(frozenset, SETS))], "no second question"


def test_a_network_that_the_runtime_cannot_load_is_told_beside_the_others(ports: StorePorts, agent: HandAgent) -> None:
    models = [small_network(), other_network()]
    odd = hashlib.sha256(models[1]).hexdigest()
    with background(ports.fused, agent.device_id, models, 60.0) as sets:
        lease = fusion_lease(agent)
        for item in lease["items"]:
            refusal = {"failure": "error", "reason": "no operator Odd"}
            answer = refusal if item["sha256"] == odd else {"fused": SETS}
            assert agent.put(lease, item["key"], {"epoch": lease["epoch"], **answer}).status_code == 200
        assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200
        known, refused = sets.result(PATIENCE_S)
    assert known == tuple(map(frozenset, SETS))
    assert isinstance(refused, Failure)
    assert refused.reason == "no operator Odd"


def other_network() -> bytes:
    """A network with another wiring."""
    model = onnx.load_model_from_string(small_network())
    model.graph.node[0].name = "odd"
    return bytes(model.SerializeToString())


def test_a_device_that_never_tells_is_not_waited_for_for_ever(ports: StorePorts, agent: HandAgent) -> None:
    with pytest.raises(MeasurementFailed, match=r"did not report .* within 0 s"):
        ports.fused(agent.device_id, [small_network()], 0.0)


def test_a_run_that_is_stopped_waits_for_no_fusion(ports: StorePorts, store: Store, agent: HandAgent) -> None:
    with store.begin() as tx:
        job_states.cancel(tx, jobs.get(tx, the_job(store).id))
    with pytest.raises(Halted, match="cancelled"):
        ports.fused(agent.device_id, [small_network()], 60.0)
