"""Fusions: a device is asked which nodes of a network run as one, in leases of their own, and its answer is kept."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from agent_calls import HandAgent, conv, fill
from fastapi.testclient import TestClient
from service_world import HandClock

from hw_profiles.testing import small_network
from hw_profiles.timing.protocol import BurstProtocol
from hw_profiles.wiring import wiring
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, blobs
from service.store.devices import agent_leases, devices, fusions, measurements, work_items
from service.store.devices.wishes import USER

NETWORK = small_network()
WIRING = wiring(NETWORK)
KINDS = ["block", "network", "fusion"]
SETS = [["node of c0", "node of r0"], ["node of c1", "node of a1", "node of r1"], ["node of p"]]


@pytest.fixture
def agent(anonymous: TestClient, store: Store) -> HandAgent:
    return HandAgent(anonymous, store)


def asked(store: Store, settings: Settings, device_id: str, job_id: str = USER) -> str:
    """The device is asked about NETWORK; the digest of its file."""
    files = Blobs(settings.data_dir)
    blob = files.put_bytes(NETWORK)
    with store.begin() as tx:
        files.record(tx, blob)
        fusions.ask(tx, device_id, {WIRING: blob.sha256}, job_id)
    return blob.sha256


def told(store: Store, device_id: str) -> fusions.Told | None:
    with store.read() as tx:
        return fusions.told(tx, devices.get(tx, device_id), [WIRING]).get(WIRING)


def lease(agent: HandAgent) -> dict[str, Any]:
    body = {"agent_id": agent.id, "device_ids": agent.device_ids, "kinds": KINDS}
    answer = agent.call("POST", "/leases", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_network_travels_and_the_answer_is_kept(agent: HandAgent, store: Store, settings: Settings) -> None:
    fill(store, agent.device_id, [conv(8)])
    sha256 = asked(store, settings, agent.device_id)
    given = lease(agent)
    assert [(item["kind"], item["sha256"]) for item in given["items"]] == [("fusion", sha256)], "before blocks"
    assert given["anchors"] == []
    content = agent.call("GET", f"/leases/{given['id']}/files/{sha256}").content
    assert hashlib.sha256(content).hexdigest() == sha256
    assert told(store, agent.device_id) is None
    result = {"epoch": given["epoch"], "fused": SETS}
    assert agent.put(given, given["items"][0]["key"], result).status_code == 200
    assert agent.call("POST", f"/leases/{given['id']}/complete", {"epoch": given["epoch"]}).status_code == 200
    assert told(store, agent.device_id) == fusions.Told(tuple(map(frozenset, SETS)))
    with store.read() as tx:
        assert sha256 not in blobs.referenced(tx), "the file is no longer held"
    asked(store, settings, agent.device_id)
    assert lease(agent)["items"][0]["kind"] == "block", "what was told is not asked for again"


def test_an_agent_that_cannot_tell_is_given_no_fusion(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id)
    assert agent.ask().status_code == 204


def test_a_refusal_is_told_and_asking_again_is_possible(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id)
    given = lease(agent)
    refusal = {"epoch": given["epoch"], "failure": "error", "reason": "no operator Odd"}
    agent.put(given, given["items"][0]["key"], refusal)
    agent.call("POST", f"/leases/{given['id']}/complete", {"epoch": given["epoch"]})
    assert told(store, agent.device_id) == fusions.Told(failure="no operator Odd")
    asked(store, settings, agent.device_id)
    assert told(store, agent.device_id) is None
    assert lease(agent)["items"][0]["kind"] == "fusion"


@pytest.mark.parametrize("kind", ["fusion", "block"])
def test_an_answer_to_another_question_is_refused(
    kind: str, agent: HandAgent, store: Store, settings: Settings
) -> None:
    bursts = {"minima_us": [1.0], "medians_us": [1.0]}
    if kind == "fusion":
        asked(store, settings, agent.device_id)
    else:
        fill(store, agent.device_id, [conv(8)])
    given = lease(agent)
    wrong = {"bursts": bursts} if kind == "fusion" else {"fused": SETS}
    answer = agent.put(given, given["items"][0]["key"], {"epoch": given["epoch"], **wrong})
    assert answer.status_code == 422
    assert ("fused" if kind == "fusion" else "bursts") in answer.text


def test_a_network_that_takes_its_agent_with_it_is_given_up(
    agent: HandAgent, store: Store, settings: Settings, clock: HandClock
) -> None:
    asked(store, settings, agent.device_id)
    for wait_s in (5, 10, 20, 0):
        agent.beat()
        assert lease(agent)["items"][0]["kind"] == "fusion"
        clock.advance(31)
        with store.begin() as tx:
            agent_leases.sweep(tx)
        clock.advance(wait_s)
    found = told(store, agent.device_id)
    assert found is not None
    assert found.failure
    assert not found.sets


def test_a_fusion_that_nothing_waits_for_leaves_the_queue_and_its_file_goes(
    agent: HandAgent, store: Store, settings: Settings
) -> None:
    sha256 = asked(store, settings, agent.device_id, "job_1")
    given = lease(agent)
    assert agent.beat(given["id"]) == "continue"
    with store.begin() as tx:
        fusions.release(tx)
        assert sha256 in blobs.referenced(tx), "the device still needs it"
        work_items.withdraw(tx, "job_1")
    assert agent.beat(given["id"]) == "cancel"
    back = {"epoch": given["epoch"], "error_class": "cancelled", "detail": ""}
    assert agent.call("POST", f"/leases/{given['id']}/fail", back).status_code in (200, 204)
    body = {"agent_id": agent.id, "device_ids": agent.device_ids, "kinds": KINDS}
    assert agent.call("POST", "/leases", body).status_code == 204
    with store.begin() as tx:
        fusions.release(tx)
        assert sha256 not in blobs.referenced(tx)


def test_networks_are_given_only_to_agents_that_ask_for_them(
    agent: HandAgent, store: Store, settings: Settings
) -> None:
    asked(store, settings, agent.device_id)
    files = Blobs(settings.data_dir)
    with store.begin() as tx:
        blob = files.put_bytes(NETWORK)
        files.record(tx, blob)
        measurements.measure(tx, agent.device_id, {"whole": blob.sha256}, BurstProtocol())
    body = {"agent_id": agent.id, "device_ids": agent.device_ids, "kinds": ["fusion"]}
    assert [item["kind"] for item in agent.call("POST", "/leases", body).json()["items"]] == ["fusion"]
