"""Checks: a device converts a network and runs it on samples, and its files are kept; an old agent is given none."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from agent_calls import OFFER, HandAgent, bearer, conv, enrolment, fill
from fastapi.testclient import TestClient
from service_world import HandClock

from hw_profiles.testing import small_network
from hw_profiles.timing.protocol import BurstProtocol
from hw_profiles.wire.arrays import pack
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, blobs
from service.store.devices import agent_leases, conversions, devices, measurements, work_items
from service.store.devices.conversions import Answered, Question
from service.store.devices.wishes import USER

NETWORK = small_network()
SAMPLES = pack({"image": np.zeros((2, 3, 8, 8), np.float32)})
ENGINE, OUTPUTS = b"an engine's own file", pack({"logits": np.zeros((2, 10), np.float32)})
KINDS = ["block", "network", "fusion", "check"]
OWN = {**OFFER, "name": "engine", "settings": {"threads": 1, "kind": "simulated", "suffix": ".eng"}}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


QUESTION = Question(digest(NETWORK), digest(SAMPLES))
CONVERTED = {"sha256": digest(ENGINE), "outputs_sha256": digest(OUTPUTS)}


@pytest.fixture
def agent(anonymous: TestClient, store: Store) -> HandAgent:
    return HandAgent(anonymous, store, runtimes=[OWN])


def recorded(store: Store, settings: Settings, *contents: bytes) -> None:
    files = Blobs(settings.data_dir)
    with store.begin() as tx:
        for content in contents:
            files.record(tx, files.put_bytes(content))


def asked(store: Store, settings: Settings, device_id: str, job_id: str = USER) -> None:
    recorded(store, settings, NETWORK, SAMPLES)
    with store.begin() as tx:
        conversions.ask(tx, device_id, [QUESTION], job_id)


def answered(store: Store, device_id: str) -> Answered | None:
    with store.read() as tx:
        return conversions.answered(tx, devices.get(tx, device_id), [QUESTION]).get(QUESTION.digest)


def held_files(store: Store, *contents: bytes) -> set[str]:
    """Digests of the files that the housekeeping leaves, of these."""
    with store.begin() as tx:
        conversions.release(tx, tx.now - timedelta(days=1))
        return {digest(content) for content in contents} & blobs.referenced(tx)


def answer_it(agent: HandAgent, given: dict[str, Any]) -> None:
    for content in (ENGINE, OUTPUTS):
        assert send(agent, given, content).status_code == 200
    result = {"epoch": given["epoch"], "converted": CONVERTED}
    assert agent.put(given, given["items"][0]["key"], result).status_code == 200
    assert agent.call("POST", f"/leases/{given['id']}/complete", {"epoch": given["epoch"]}).status_code == 200


def body(agent: HandAgent) -> dict[str, Any]:
    return {"agent_id": agent.id, "device_ids": agent.device_ids, "kinds": KINDS}


def lease(agent: HandAgent) -> dict[str, Any]:
    answer = agent.call("POST", "/leases", body(agent))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def send(agent: HandAgent, given: dict[str, Any], content: bytes, sha256: str = "") -> Any:
    path = f"/api/v1/leases/{given['id']}/files/{sha256 or digest(content)}"
    return agent.http.put(path, files={"file": ("file", content)}, headers=bearer(agent.secret))


def test_network_and_samples_travel_and_the_engines_file_comes_back(
    agent: HandAgent, store: Store, settings: Settings
) -> None:
    fill(store, agent.device_id, [conv(8)])
    asked(store, settings, agent.device_id)
    given = lease(agent)
    (item,) = given["items"]
    assert (item["kind"], item["sha256"], item["single_sha256"]) == ("check", digest(NETWORK), digest(SAMPLES))
    for content in (NETWORK, SAMPLES):
        assert agent.call("GET", f"/leases/{given['id']}/files/{digest(content)}").content == content
    assert answered(store, agent.device_id) is None
    answer_it(agent, given)
    assert answered(store, agent.device_id) == Answered(digest(ENGINE), digest(OUTPUTS))
    with store.read() as tx:
        held = blobs.referenced(tx)
    assert {digest(ENGINE), digest(OUTPUTS)} <= held
    assert not {digest(NETWORK), digest(SAMPLES)} & held, "what travelled is no longer held"
    asked(store, settings, agent.device_id)
    assert lease(agent)["items"][0]["kind"] == "block", "what was answered is not asked for again"
    with store.begin() as tx:
        conversions.release(tx, tx.now + timedelta(days=1))
        assert not {digest(ENGINE), digest(OUTPUTS)} & blobs.referenced(tx)


def test_an_agent_that_cannot_convert_is_given_no_check(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id)
    assert agent.ask().status_code == 204


def test_a_refusal_is_told_and_asking_again_is_possible(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id)
    given = lease(agent)
    refusal = {"epoch": given["epoch"], "failure": "error", "reason": "no operator Odd"}
    agent.put(given, given["items"][0]["key"], refusal)
    agent.call("POST", f"/leases/{given['id']}/complete", {"epoch": given["epoch"]})
    assert answered(store, agent.device_id) == Answered(failure="no operator Odd")
    asked(store, settings, agent.device_id)
    assert answered(store, agent.device_id) is None
    assert lease(agent)["items"][0]["kind"] == "check"


def test_a_result_names_files_that_were_sent(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id)
    given = lease(agent)
    key = given["items"][0]["key"]
    wrong = send(agent, given, ENGINE, digest(OUTPUTS))
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "sha256")
    send(agent, given, ENGINE)
    missing = agent.put(given, key, {"epoch": given["epoch"], "converted": CONVERTED})
    assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "converted.outputs_sha256")
    other = agent.put(given, key, {"epoch": given["epoch"], "fused": [["a"]]})
    assert other.status_code == 422
    assert "converted" in other.text


def test_only_checks_have_files_to_send(agent: HandAgent, anonymous: TestClient, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    given = agent.lease()
    assert send(agent, given, ENGINE).json()["code"] == "no_check"
    other = HandAgent(anonymous, store, "elsewhere")
    assert send(other, given, ENGINE).status_code == 403


def test_the_engines_own_file_is_timed_under_its_suffix(agent: HandAgent, store: Store, settings: Settings) -> None:
    recorded(store, settings, ENGINE, NETWORK)
    with store.begin() as tx:
        assert devices.get(tx, agent.device_id).config.suffix == ".eng"
        networks = {"own": digest(ENGINE), "as it came": digest(NETWORK)}
        measurements.measure(tx, agent.device_id, networks, BurstProtocol(), suffixes={"own": ".eng"})
    items = lease(agent)["items"]
    assert {item["sha256"]: item["suffix"] for item in items} == {digest(ENGINE): ".eng", digest(NETWORK): ".onnx"}


def test_a_check_that_nothing_waits_for_leaves_the_queue_and_its_files_go(
    agent: HandAgent, store: Store, settings: Settings
) -> None:
    asked(store, settings, agent.device_id, "job_1")
    assert held_files(store, NETWORK, SAMPLES) == {digest(NETWORK), digest(SAMPLES)}, "the device still needs them"
    with store.begin() as tx:
        work_items.withdraw(tx, "job_1")
    assert agent.call("POST", "/leases", body(agent)).status_code == 204
    assert not held_files(store, NETWORK, SAMPLES)


def test_an_agent_gives_up_a_check_that_nothing_waits_for(agent: HandAgent, store: Store, settings: Settings) -> None:
    asked(store, settings, agent.device_id, "job_1")
    asked(store, settings, agent.device_id, "job_2")
    given = lease(agent)
    with store.begin() as tx:
        work_items.withdraw(tx, "job_1")
    assert agent.beat(given["id"]) == "continue", "another job waits for it"
    with store.begin() as tx:
        work_items.withdraw(tx, "job_2")
    assert agent.beat(given["id"]) == "cancel"
    back = {"epoch": given["epoch"], "error_class": "cancelled", "detail": ""}
    assert agent.call("POST", f"/leases/{given['id']}/fail", back).status_code in (200, 204)
    assert agent.call("POST", "/leases", body(agent)).status_code == 204
    assert not held_files(store, NETWORK, SAMPLES)


def test_after_a_change_of_configuration_the_new_one_answers_and_the_old_question_is_dropped(
    agent: HandAgent, store: Store, settings: Settings, clock: HandClock
) -> None:
    asked(store, settings, agent.device_id, "job_1")
    lease(agent)
    newer = enrolment(runtimes=[{**OWN, "version": "2"}])
    assert agent.call("PUT", f"/agents/{agent.id}", newer).json()["device_ids"] == agent.device_ids
    clock.advance(10)
    agent.beat()
    answer_it(agent, lease(agent))
    assert answered(store, agent.device_id) == Answered(digest(ENGINE), digest(OUTPUTS))
    assert held_files(store, NETWORK, SAMPLES, ENGINE) == {digest(ENGINE)}


def test_an_answer_that_is_used_again_is_kept_for_another_day(
    agent: HandAgent, store: Store, settings: Settings, clock: HandClock
) -> None:
    asked(store, settings, agent.device_id)
    clock.advance(86_000)
    agent.beat()
    answer_it(agent, lease(agent))
    clock.advance(1_000)
    assert held_files(store, ENGINE), "it was asked for more than a day ago, but came just now"
    clock.advance(80_000)
    asked(store, settings, agent.device_id)
    clock.advance(80_000)
    assert held_files(store, ENGINE), "it was used less than a day ago"
    clock.advance(80_000)
    assert not held_files(store, ENGINE)


def test_a_network_that_takes_its_agent_with_it_is_given_up(
    agent: HandAgent, store: Store, settings: Settings, clock: HandClock
) -> None:
    asked(store, settings, agent.device_id)
    for wait_s in (5, 10, 20, 0):
        agent.beat()
        assert lease(agent)["items"][0]["kind"] == "check"
        clock.advance(31)
        with store.begin() as tx:
            agent_leases.sweep(tx)
        clock.advance(wait_s)
    found = answered(store, agent.device_id)
    assert found is not None
    assert found.failure
    assert not found.file
    agent.beat()
    assert agent.call("POST", "/leases", body(agent)).status_code == 204
    assert not held_files(store, NETWORK, SAMPLES)


def test_a_crash_of_the_converter_is_worth_another_try(
    agent: HandAgent, store: Store, settings: Settings, clock: HandClock
) -> None:
    asked(store, settings, agent.device_id)
    for wait_s in (5, 10, 20, 0):
        assert answered(store, agent.device_id) is None
        given = lease(agent)
        crash = {"epoch": given["epoch"], "failure": "crash", "reason": "signal 11"}
        assert agent.put(given, given["items"][0]["key"], crash).status_code == 200
        assert agent.call("POST", f"/leases/{given['id']}/complete", {"epoch": given["epoch"]}).status_code == 200
        clock.advance(wait_s)
    assert answered(store, agent.device_id) == Answered(failure="crash: signal 11")
