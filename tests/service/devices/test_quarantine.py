"""Quarantine: why a device is in it, where that is said, and how the device leaves it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from agent_calls import HandAgent, conv, fill
from fastapi.testclient import TestClient
from service_world import HandClock, Uploaded, queue

from service.store import Store
from service.store.devices import devices
from service.store.jobs import jobs

REFERENCE = {conv(8).key: 10.0, conv(16).key: 20.0, conv(24).key: 30.0}


@pytest.fixture
def agent(client: TestClient, store: Store) -> HandAgent:
    return HandAgent(client, store)


def _refuse(agent: HandAgent, lease: dict[str, Any]) -> None:
    agent.finish(lease, dict.fromkeys(REFERENCE, 60.0) | {conv(32).key: 42.0})


def _quarantined(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8), conv(16), conv(24)])
    agent.finish(agent.lease(), REFERENCE)
    fill(store, agent.device_id, [conv(32)])
    for _ in range(3):
        _refuse(agent, agent.lease())


def _shown(client: TestClient, agent: HandAgent) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/v1/devices/{agent.device_id}").json()
    return found


def test_the_reason_and_the_remedy_are_said_everywhere_and_logged_once(
    agent: HandAgent, store: Store, client: TestClient, uploaded: Uploaded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "service")
    _quarantined(agent, store)
    reason = _shown(client, agent)["state_reason"]
    assert reason.startswith("3 timing sessions in a row disagreed with the reference: other programs use this machine")
    assert f"tried again at {_retry_at(store, agent)}" in reason
    assert [reason in record.message for record in caplog.records] == [True]
    job = queue(store, uploaded)
    with store.begin() as tx:
        jobs.wait_for(tx, job, agent.device_id)
    assert client.get(f"/api/v1/jobs/{job}").json()["waiting_for"]["reason"] == reason
    for path in ("/devices", f"/devices/{agent.device_id}", f"/jobs/{job}"):
        assert reason in client.get(path).text, path


def _retry_at(store: Store, agent: HandAgent) -> str:
    with store.read() as tx:
        return f"{devices.get(tx, agent.device_id).retry_at:%H:%M}"


def test_an_accepted_trial_of_the_anchors_alone_ends_the_quarantine(
    agent: HandAgent, store: Store, client: TestClient, clock: HandClock
) -> None:
    _quarantined(agent, store)
    clock.advance(60 - 1)
    agent.beat()
    assert agent.ask().status_code == 204
    clock.advance(1)
    trial = agent.lease()
    assert (trial["items"], len(trial["anchors"])) == ([], 2)
    agent.finish(trial, REFERENCE)
    shown = _shown(client, agent)
    assert (shown["state"], shown["state_reason"]) == ("online", None)
    assert [item["key"] for item in agent.lease()["items"]] == [conv(32).key]


def test_each_refused_trial_makes_the_pause_longer(
    agent: HandAgent, store: Store, client: TestClient, clock: HandClock
) -> None:
    _quarantined(agent, store)
    for pause_s in (60, 120, 300, 600, 600):
        clock.advance(pause_s - 1)
        agent.beat()
        assert agent.ask().status_code == 204
        clock.advance(1)
        _refuse(agent, agent.lease())
        assert _shown(client, agent)["state"] == "quarantined"


def test_a_trial_without_a_timing_ends_nothing(
    agent: HandAgent, store: Store, client: TestClient, clock: HandClock
) -> None:
    _quarantined(agent, store)
    clock.advance(60)
    agent.beat()
    trial = agent.lease()
    for anchor in trial["anchors"]:
        agent.put(trial, anchor["key"], {"epoch": trial["epoch"], "failure": "crash", "reason": "killed"})
    agent.call("POST", f"/leases/{trial['id']}/complete", {"epoch": trial["epoch"]})
    assert _shown(client, agent)["state"] == "quarantined"
    assert agent.ask().status_code == 204


def test_a_failed_self_test_names_the_restart(client: TestClient, store: Store, clock: HandClock) -> None:
    agent = HandAgent(client, store, self_test={"ok": False, "detail": "the child died"})
    assert _shown(client, agent)["state_reason"] == (
        "its agent failed its self-test (the child died); restart the agent to test it again"
    )
    clock.advance(3600)
    agent.beat()
    assert agent.ask().status_code == 204
