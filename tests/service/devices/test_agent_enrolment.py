"""Enrolment: one-time tokens, the agent's own credentials, restarts, protocols, devices that move on."""

from __future__ import annotations

import pytest
from agent_calls import OFFER, HandAgent, bearer, conv, enrolment, enrolment_token, fill
from fastapi.testclient import TestClient
from service_world import HandClock

from service.store import Store
from service.store.devices import devices, latency, work_items


def test_an_agent_enrols_once_and_its_device_is_online(anonymous: TestClient, store: Store, user_token: str) -> None:
    secret = enrolment_token(store)
    made = anonymous.post("/api/v1/agents", json=enrolment(), headers=bearer(secret))
    assert made.status_code == 201
    assert made.json()["heartbeat_s"] == 10
    assert made.json()["token"].startswith("nl_a_")
    again = anonymous.post("/api/v1/agents", json=enrolment(), headers=bearer(secret))
    assert (again.status_code, again.json()["code"]) == (401, "token_used")

    listed = anonymous.get("/api/v1/devices", headers=bearer(user_token)).json()["items"]
    assert [(d["name"], d["state"], d["coverage"]) for d in listed] == [("bench-simulated-t1-fp32", "online", 0.0)]
    assert listed[0]["id"] == made.json()["device_ids"][0]


def test_a_repeated_enrolment_shows_the_same_secret(anonymous: TestClient, store: Store) -> None:
    headers = bearer(enrolment_token(store)) | {"Idempotency-Key": "one"}
    first = anonymous.post("/api/v1/agents", json=enrolment(), headers=headers)
    second = anonymous.post("/api/v1/agents", json=enrolment(), headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


@pytest.mark.parametrize(("protocol", "hint"), [(0, "git pull && pip install"), (7, "upgrade this server")])
def test_another_protocol_is_told_what_to_upgrade(
    anonymous: TestClient, store: Store, protocol: int, hint: str
) -> None:
    body = {"protocol": protocol, "a_field": "of another version"}
    answer = anonymous.post("/api/v1/agents", json=body, headers=bearer(enrolment_token(store)))
    assert answer.status_code == 426
    assert hint in answer.json()["detail"]


def test_a_restart_keeps_the_devices_and_their_ids(anonymous: TestClient, store: Store) -> None:
    agent = HandAgent(anonymous, store)
    answer = agent.call("PUT", f"/agents/{agent.id}", enrolment())
    assert answer.status_code == 200
    assert answer.json()["device_ids"] == agent.device_ids
    assert answer.json()["token"] == ""


def test_a_new_runtime_version_starts_a_new_table_under_the_same_id(anonymous: TestClient, store: Store) -> None:
    agent = HandAgent(anonymous, store)
    fill(store, agent.device_id, [conv(8)])
    agent.finish(agent.lease())
    with store.read() as tx:
        before = latency.table(tx, agent.device_id)
    assert len(before.rows) == 1
    newer = enrolment(runtimes=[OFFER | {"version": "2"}])
    assert agent.call("PUT", f"/agents/{agent.id}", newer).json()["device_ids"] == agent.device_ids
    with store.read() as tx:
        after = latency.table(tx, agent.device_id)
        assert work_items.outstanding(tx, agent.device_id) == 0
    assert after.device.runtime_version == "2"
    assert not after.rows
    assert after.epoch > before.epoch
    fill(store, agent.device_id, [conv(8)])
    assert len(agent.lease()["items"]) == 1


def test_a_device_that_is_no_longer_offered_goes_offline(anonymous: TestClient, store: Store) -> None:
    two = OFFER | {"settings": {"threads": 2, "kind": "simulated"}}
    agent = HandAgent(anonymous, store, runtimes=[OFFER, two])
    agent.call("PUT", f"/agents/{agent.id}", enrolment())
    with store.read() as tx:
        assert devices.state(tx, devices.get(tx, "bench-simulated-t2-fp32")) == "offline"
        assert devices.state(tx, devices.get(tx, "bench-simulated-t1-fp32")) == "online"


def test_a_lost_machine_can_be_enrolled_again_and_the_old_token_is_void(
    anonymous: TestClient, store: Store, clock: HandClock
) -> None:
    old = HandAgent(anonymous, store)
    second = enrolment_token(store, "second")
    answer = anonymous.post("/api/v1/agents", json=enrolment(fingerprint="new disk"), headers=bearer(second))
    assert (answer.status_code, answer.json()["code"]) == (409, "machine")
    clock.advance(31)
    answer = anonymous.post("/api/v1/agents", json=enrolment(fingerprint="new disk"), headers=bearer(second))
    assert answer.status_code == 201
    assert answer.json()["device_ids"] == old.device_ids
    assert old.ask().status_code == 401


def test_a_failed_self_test_quarantines_until_a_clean_one(anonymous: TestClient, store: Store) -> None:
    agent = HandAgent(anonymous, store, self_test={"ok": False, "detail": "the child died"})
    fill(store, agent.device_id, [conv(8)])
    assert agent.ask().status_code == 204
    with store.read() as tx:
        assert devices.state(tx, devices.get(tx, agent.device_id)) == "quarantined"
    agent.call("PUT", f"/agents/{agent.id}", enrolment())
    assert agent.ask().status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"machine": "Bad Name"}, "machine"),
        ({"runtimes": []}, "runtimes"),
        ({"runtimes": [OFFER, OFFER]}, "runtimes"),
        ({"unknown": 1}, "unknown"),
        ({"runtimes": [OFFER | {"settings": {"threads": 0}}]}, "runtimes.0.settings.threads"),
        ({"self_test": {"ok": True, "null_us": {"x": -1}}}, "self_test.null_us.x"),
    ],
)
def test_a_wrong_enrolment_names_the_field(
    anonymous: TestClient, store: Store, changes: dict[str, object], field: str
) -> None:
    answer = anonymous.post("/api/v1/agents", json=enrolment() | changes, headers=bearer(enrolment_token(store)))
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_only_the_right_kind_of_token(anonymous: TestClient, store: Store, user_token: str) -> None:
    agent = HandAgent(anonymous, store)
    other = HandAgent(anonymous, store, "other")
    assert anonymous.post("/api/v1/agents", json=enrolment()).status_code == 401
    assert anonymous.post("/api/v1/agents", json=enrolment(), headers=bearer(user_token)).status_code == 403
    assert agent.call("GET", "/devices").status_code == 403
    assert agent.call("GET", "/jobs").status_code == 403
    body = {"agent_id": agent.id, "device_ids": agent.device_ids}
    assert anonymous.post("/api/v1/leases", json=body, headers=bearer(user_token)).status_code == 403
    assert other.call("POST", "/leases", body).status_code == 403
    stolen = {"agent_id": other.id, "device_ids": agent.device_ids}
    assert other.call("POST", "/leases", stolen).json()["code"] == "foreign_device"
    beat = anonymous.post(f"/api/v1/agents/{agent.id}/heartbeat", json={"state": "idle"}, headers=bearer(user_token))
    assert beat.status_code == 403
    assert other.call("POST", f"/agents/{agent.id}/heartbeat", {"state": "idle"}).status_code == 403
