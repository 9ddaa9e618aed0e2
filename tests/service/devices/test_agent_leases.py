"""Leases of blocks: one a machine, fenced off when lost, results taken once, dead ones give their items back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import onnx
import pytest
from agent_calls import OFFER, HandAgent, bearer, block_result, bursts, conv, fill
from fastapi.testclient import TestClient
from service_world import HandClock

from hw_profiles.tables.probe import probe
from service.store import Store, events
from service.store.devices import agent_leases, devices, latency, work_items
from service.store.devices.device_figures import figures
from service.store.devices.work_items import WorkItem


@pytest.fixture
def agent(anonymous: TestClient, store: Store) -> HandAgent:
    return HandAgent(anonymous, store)


def _item(store: Store, key: str) -> WorkItem:
    with store.read() as tx:
        return tx.session.query(WorkItem).filter_by(key=key).one()


def test_nothing_to_do_is_204_with_retry_after(agent: HandAgent) -> None:
    answer = agent.ask()
    assert answer.status_code == 204
    assert int(answer.headers["Retry-After"]) >= 1


def test_rows_come_by_priority_and_end_in_the_table(agent: HandAgent, store: Store) -> None:
    ops = [conv(width) for width in (8, 16, 24)]
    fill(store, agent.device_id, ops)
    lease = agent.lease(max_items=2)
    assert [item["key"] for item in lease["items"]] == [op.key for op in ops[:2]]
    assert all(item["kind"] == "block" and item["expected_us"] > 0 for item in lease["items"])
    agent.finish(lease, {ops[0].key: 11.0, ops[1].key: 22.0})
    with store.read() as tx:
        table = latency.table(tx, agent.device_id)
        assert work_items.outstanding(tx, agent.device_id) == 1
        assert figures(tx)[agent.device_id].coverage == pytest.approx(2 / 3)
    assert table.lookup(ops[0]).latency_us == pytest.approx(11.0)
    assert table.lookup(ops[1]).source == "measured"


def test_asking_again_for_what_is_there_asks_for_nothing(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    agent.finish(agent.lease())
    with store.begin() as tx:
        assert work_items.fill(tx, agent.device_id, [conv(8), conv(9), conv(9)], [1.0, 2.0, 3.0]) == 1
    assert _item(store, conv(9).key).priority == 3.0


def test_files_are_the_timing_models_and_only_of_the_lease(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    item = lease["items"][0]
    for digest in (item["sha256"], item["single_sha256"]):
        answer = agent.call("GET", f"/leases/{lease['id']}/files/{digest}")
        assert hashlib.sha256(answer.content).hexdigest() == digest
        onnx.checker.check_model(onnx.load_model_from_string(answer.content))
    assert agent.call("GET", f"/leases/{lease['id']}/files/{'0' * 64}").status_code == 404


def test_one_lease_a_machine(agent: HandAgent, store: Store, clock: HandClock) -> None:
    fill(store, agent.device_id, [conv(8), conv(16)])
    first = agent.lease(max_items=1)
    assert agent.lease(max_items=1)["id"] == first["id"], "an answer that was lost is given again"
    agent.beat(first["id"])
    clock.advance(1)
    agent.beat(first["id"])
    second = agent.lease(max_items=1)
    assert second["id"] != first["id"]
    assert second["epoch"] > first["epoch"]
    late = agent.put(first, first["items"][0]["key"], block_result(first["epoch"], 5.0))
    assert late.status_code == 410


def test_results_are_taken_once(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    key = lease["items"][0]["key"]
    agent.put_ok(lease, key, 10.0)
    agent.put_ok(lease, key, 99.0)
    with store.read() as tx:
        table = latency.table(tx, agent.device_id)
        assert tx.session.query(latency.LatencyRow).count() == 1
    assert table.lookup(conv(8)).latency_us == pytest.approx(10.0)


def test_a_dead_agents_items_come_back_after_expiry_with_back_off(
    agent: HandAgent, store: Store, clock: HandClock
) -> None:
    fill(store, agent.device_id, [conv(8), conv(16)])
    lease = agent.lease()
    done, lost = (item["key"] for item in lease["items"])
    agent.put_ok(lease, done)
    clock.advance(29)
    with store.begin() as tx:
        assert agent_leases.sweep(tx) == 0
    clock.advance(1)
    with store.begin() as tx:
        assert agent_leases.sweep(tx) == 1
        assert devices.state(tx, devices.get(tx, agent.device_id)) == "offline"
    with store.read() as tx:
        told = [event.data["state"] for event in events.after(tx, 0, 99) if event.type == "device.state"]
    assert told == ["online", "busy", "offline"]
    assert (_item(store, done).state, _item(store, lost).state) == ("done", "queued")
    assert _item(store, lost).attempt == 1
    agent.beat()
    assert agent.ask().status_code == 204, "the item rests for 5 s"
    clock.advance(5)
    assert [item["key"] for item in agent.lease()["items"]] == [lost]


def test_a_heartbeat_extends_the_lease(agent: HandAgent, store: Store, clock: HandClock) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    for _ in range(6):
        clock.advance(20)
        assert agent.beat(lease["id"]) == "continue"
    agent.put_ok(lease, lease["items"][0]["key"])


def test_an_item_that_is_lost_again_and_again_is_poisoned(agent: HandAgent, store: Store, clock: HandClock) -> None:
    fill(store, agent.device_id, [conv(8)])
    for wait in (5, 10, 20, 0):
        agent.beat()
        agent.lease()
        clock.advance(31)
        with store.begin() as tx:
            agent_leases.sweep(tx)
        rested = (_item(store, conv(8).key).available_at - clock.now).total_seconds()
        assert rested == wait or wait == 0
        clock.advance(wait)
    assert _item(store, conv(8).key).state == "poisoned"
    agent.beat()
    assert agent.ask().status_code == 204
    with store.read() as tx:
        assert [item.key for item in work_items.refused(tx, agent.device_id)] == [conv(8).key]


def test_late_results_are_409_when_done_and_410_when_open(agent: HandAgent, store: Store, clock: HandClock) -> None:
    fill(store, agent.device_id, [conv(8)])
    first = agent.lease()
    key = first["items"][0]["key"]
    clock.advance(31)
    late = agent.put(first, key, block_result(first["epoch"], 5.0))
    assert (late.status_code, late.json()["code"]) == (410, "lease_expired")
    assert agent.beat(first["id"]) == "cancel"
    clock.advance(5)
    agent.beat()
    second = agent.lease()
    agent.put_ok(second, key, 7.0)
    late = agent.put(first, key, block_result(first["epoch"], 5.0))
    assert (late.status_code, late.json()["code"]) == (409, "lease_lost")
    wrong_epoch = agent.call("POST", f"/leases/{second['id']}/complete", {"epoch": first["epoch"]})
    assert wrong_epoch.status_code == 409
    with store.read() as tx:
        assert latency.table(tx, agent.device_id).lookup(conv(8)).latency_us == pytest.approx(7.0)


def test_an_agent_cannot_touch_anothers_lease(
    agent: HandAgent, anonymous: TestClient, store: Store, user_token: str
) -> None:
    other = HandAgent(anonymous, store, "other")
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    item = lease["items"][0]
    result = block_result(lease["epoch"], 1.0)
    assert other.put(lease, item["key"], result).status_code == 403
    for path, body in (("complete", {"epoch": 1}), ("fail", {"epoch": 1, "error_class": "x"})):
        assert other.call("POST", f"/leases/{lease['id']}/{path}", body).status_code == 403
    assert other.call("GET", f"/leases/{lease['id']}/files/{item['sha256']}").status_code == 403
    beat = other.call("POST", f"/agents/{other.id}/heartbeat", {"state": "working", "lease_id": lease["id"]})
    assert beat.status_code == 403
    as_user = anonymous.put(
        f"/api/v1/leases/{lease['id']}/results/{item['key']}", json=result, headers=bearer(user_token)
    )
    assert as_user.status_code == 403


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"epoch": 1, "bursts": {"minima_us": [NaN], "medians_us": [1]}}', "bursts.minima_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [Infinity], "medians_us": [1]}}', "bursts.minima_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [-1], "medians_us": [1]}}', "bursts.minima_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [0], "medians_us": [1]}}', "bursts.minima_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [1], "medians_us": [1e15]}}', "bursts.medians_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [1, 2], "medians_us": [1]}}', "bursts.medians_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [], "medians_us": []}}', "bursts.minima_us"),
        ('{"epoch": 1, "bursts": {"minima_us": [1], "medians_us": [1]}}', "single"),
        ('{"epoch": 1}', "bursts"),
        ('{"epoch": -1, "failure": "error"}', "epoch"),
        ('{"epoch": 1, "failure": "error", "extra": 1}', "extra"),
        ('{"epoch": 1, "bursts": {"minima_us": [1], "medians_us": [1], "extra": {"x": NaN}}}', "bursts.extra.x"),
    ],
)
def test_values_out_of_bounds_are_422(agent: HandAgent, store: Store, text: str, field: str) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    answer = agent.http.put(
        f"/api/v1/leases/{lease['id']}/results/{lease['items'][0]['key']}",
        content=text.replace('"epoch": 1', f'"epoch": {lease["epoch"]}'),
        headers={**bearer(agent.secret), "Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    json.loads(answer.content, parse_constant=pytest.fail)
    with store.read() as tx:
        assert not latency.table(tx, agent.device_id).rows


def test_a_runtimes_refusal_is_final_and_a_crash_is_tried_again(
    agent: HandAgent, store: Store, clock: HandClock
) -> None:
    fill(store, agent.device_id, [conv(8), conv(16)])
    lease = agent.lease()
    refused, crashed = (item["key"] for item in lease["items"])
    agent.put(lease, refused, {"epoch": lease["epoch"], "failure": "error", "reason": "no such kernel"})
    agent.put(lease, crashed, {"epoch": lease["epoch"], "failure": "crash", "reason": "signal 11"})
    agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]})
    assert (_item(store, refused).state, _item(store, refused).reason) == ("failed", "no such kernel")
    assert (_item(store, crashed).state, _item(store, crashed).attempt) == ("queued", 1)
    clock.advance(5)
    agent.beat()
    assert [item["key"] for item in agent.lease()["items"]] == [crashed]


def test_what_an_agent_gives_back_is_nobodys_fault_when_it_drains(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    body = {"epoch": lease["epoch"], "error_class": "drained"}
    for _ in range(2):  # again is harmless
        assert agent.call("POST", f"/leases/{lease['id']}/fail", body).status_code == 200
    assert (_item(store, conv(8).key).state, _item(store, conv(8).key).attempt) == ("queued", 0)
    again = agent.lease()
    body = {"epoch": again["epoch"], "error_class": "OSError", "detail": "disk full"}
    agent.call("POST", f"/leases/{again['id']}/fail", body)
    assert _item(store, conv(8).key).attempt == 1


def test_a_drained_agent_is_told_and_gets_nothing(agent: HandAgent, store: Store, client: TestClient) -> None:
    fill(store, agent.device_id, [conv(8)])
    name = client.get("/api/v1/agents").json()["items"][0]["name"]
    for ref in (name, agent.id):
        assert client.post(f"/api/v1/agents/{ref}/drain").json()["id"] == agent.id
    assert client.post("/api/v1/agents/nobody/drain").status_code == 404
    assert agent.beat() == "drain"
    assert agent.ask().status_code == 204


def _anchored(agent: HandAgent, store: Store) -> dict[str, Any]:
    """A device with anchors of 10, 20 and 30 us, and a new block to time."""
    ops = [conv(width) for width in (8, 16, 24)]
    fill(store, agent.device_id, ops)
    agent.finish(agent.lease(), {op.key: 10.0 * (i + 1) for i, op in enumerate(ops)})
    fill(store, agent.device_id, [conv(32)])
    return agent.lease()


def test_anchors_scale_a_session(agent: HandAgent, store: Store) -> None:
    lease = _anchored(agent, store)
    assert len(lease["anchors"]) == 2  # of three rows the middle one and, twice, the largest
    with store.read() as tx:
        references = {a["key"]: a["reference_us"] for a in devices.get(tx, agent.device_id).anchors}
    agent.finish(lease, {key: 1.05 * value for key, value in references.items()} | {conv(32).key: 42.0})
    with store.read() as tx:
        assert latency.table(tx, agent.device_id).lookup(conv(32)).latency_us == pytest.approx(40.0)
        assert devices.get(tx, agent.device_id).scale == pytest.approx(1 + 0.2 * (1 / 1.05 - 1))


def test_sessions_that_are_off_are_refused_and_at_last_the_device_is_quarantined(
    agent: HandAgent, store: Store
) -> None:
    lease = _anchored(agent, store)
    for round_ in range(3):
        agent.finish(lease, dict.fromkeys([a["key"] for a in lease["anchors"]], 60.0) | {conv(32).key: 42.0})
        with store.read() as tx:
            assert conv(32).key not in latency.table(tx, agent.device_id).rows
            state = devices.state(tx, devices.get(tx, agent.device_id))
        assert _item(store, conv(32).key).attempt == 0
        if round_ < 2:
            assert state == "online"
            lease = agent.lease()
    assert state == "quarantined"
    assert agent.ask().status_code == 204


def test_the_probe_curves_teach_the_kernel_classes(agent: HandAgent, store: Store) -> None:
    curves = probe()
    fill(store, agent.device_id, curves.ops)
    known = {op.key: 10.0 + -(-count // 8) * 5.0 for count, op in curves.out.items()}
    known |= {op.key: 10.0 + 0.5 * count for count, op in curves.into.items() if op.key not in known}
    with store.read() as tx:
        assert latency.table(tx, agent.device_id).classes.trivial
    while (answer := agent.ask()).status_code == 200:
        agent.finish(answer.json(), known)
    with store.read() as tx:
        assert latency.table(tx, agent.device_id).classes.out_step == 8


def test_common_rules_for_a_runtime_that_the_server_lacks_are_logged_once(
    anonymous: TestClient, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    phone = HandAgent(anonymous, store, "phone", runtimes=[OFFER | {"name": "of-a-phone"}])
    for wanted in (probe().ops, [conv(8)]):
        fill(store, phone.device_id, wanted)
        while (answer := phone.ask()).status_code == 200:
            phone.finish(answer.json())
    told = [record.getMessage() for record in caplog.records if record.name == "service.devices.anchors"]
    assert len(told) == 1
    assert "phone" in told[0]
    assert "the runtime of-a-phone is not installed on the server" in told[0]


def test_every_change_has_its_own_epoch(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8), conv(16)])
    lease = agent.lease()
    epochs = []
    for item in lease["items"]:
        agent.put_ok(lease, item["key"])
        with store.read() as tx:
            epochs.append(latency.table(tx, agent.device_id).epoch)
    assert epochs[1] == epochs[0] + 1
    with store.read() as tx:
        rows = latency.table(tx, agent.device_id).rows.values()
    assert sorted(row.epoch for row in rows) == epochs


def test_bursts_of_the_wire_are_kept_as_they_came(agent: HandAgent, store: Store) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    agent.put_ok(lease, conv(8).key, 10.0)
    with store.read() as tx:
        row = tx.session.query(latency.LatencyRow).one()
    assert row.bursts is not None
    assert row.bursts["single"]["minima_us"] == bursts(80.0)["minima_us"]
    assert row.op == conv(8).to_json()
