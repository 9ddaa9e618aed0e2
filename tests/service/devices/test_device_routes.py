"""Devices over REST: lists, tables in and out, predictions with fill, measurements, deletion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent_calls import OFFER, HandAgent, bearer, conv, enrolment, fill, network_result
from fastapi.testclient import TestClient
from service_networks import classifier
from service_world import HandClock, Uploaded, add_model, queue

from hw_profiles.device import DeviceConfig
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Failure
from service.devices import predictions, table_files
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store
from service.store.devices import agent_leases, devices, latency, measurements

PARQUET = table_files.PARQUET


@pytest.fixture
def agent(client: TestClient, store: Store) -> HandAgent:
    return HandAgent(client, store)


@pytest.fixture
def model(store: Store, settings: Settings) -> str:
    """The name of a stored network of three convolutions."""
    blobs = Blobs(settings.data_dir)
    blob = blobs.put_bytes(classifier())
    with store.begin() as tx:
        blobs.record(tx, blob)
        add_model(tx, "convs", blob.sha256)
    return "convs"


def _measure_all(agent: HandAgent) -> None:
    while (answer := agent.ask()).status_code == 200:
        agent.finish(answer.json())


def _filled(agent: HandAgent, store: Store) -> LatencyTable:
    fill(store, agent.device_id, [conv(8), conv(16), conv(24)])
    _measure_all(agent)
    with store.begin() as tx:
        latency.record_classes(tx, agent.device_id, KernelClasses(out_step=8))
    with store.read() as tx:
        return latency.table(tx, agent.device_id)


def test_a_device_by_id_and_by_name_with_its_state(
    agent: HandAgent, client: TestClient, store: Store, clock: HandClock
) -> None:
    for ref in (agent.device_id, "bench-simulated-t1-fp32"):
        shown = client.get(f"/api/v1/devices/{ref}").json()
        assert (shown["id"], shown["state"], shown["error_mape"]) == (agent.device_id, "online", None)
    fill(store, agent.device_id, [conv(8)])
    agent.lease()
    assert client.get(f"/api/v1/devices/{agent.device_id}").json()["state"] == "busy"
    clock.advance(30)
    shown = client.get(f"/api/v1/devices/{agent.device_id}").json()
    assert (shown["state"], shown["outstanding"]) == ("offline", 1)
    assert client.get("/api/v1/devices/dev_absent").status_code == 404
    assert client.get("/api/v1/devices?sort=colour").status_code == 422


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_table_goes_out_and_into_a_device_of_the_same_configuration(
    agent: HandAgent, client: TestClient, store: Store, form: str
) -> None:
    table = _filled(agent, store)
    answer = client.get(f"/api/v1/devices/{agent.device_id}/table", params={"format": form})
    assert answer.status_code == 200
    twin = HandAgent(client, store, "twin")
    kind = PARQUET if form == "parquet" else "application/json"
    headers = {"Content-Type": kind}
    path = f"/api/v1/devices/{twin.device_id}/table"
    made = client.post(path, content=answer.content, headers=headers)
    assert (made.status_code, made.json()["rows"]) == (201, 3)
    assert client.post(path, content=answer.content, headers=headers).json()["rows"] == 0
    with store.read() as tx:
        imported = latency.table(tx, twin.device_id)
    assert imported.classes == table.classes
    for op in (conv(8), conv(16), conv(24)):
        assert imported.lookup(op) == table.lookup(op)


def test_a_table_sent_twice_with_a_key_is_imported_once(agent: HandAgent, client: TestClient, store: Store) -> None:
    content = json.dumps(_filled(agent, store).to_json())
    path = f"/api/v1/devices/{HandAgent(client, store, 'twin').device_id}/table"
    headers = {"Content-Type": "application/json", "Idempotency-Key": "table-1"}
    first, again = (client.post(path, content=content, headers=headers) for _ in range(2))
    assert (first.status_code, first.json()["rows"]) == (again.status_code, again.json()["rows"]) == (201, 3)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = client.post(path, content=content + " ", headers=headers)
    assert other.status_code == 409


def test_parquet_by_accept_and_readable_by_others(agent: HandAgent, client: TestClient, store: Store) -> None:
    import io

    from pyarrow import parquet

    _filled(agent, store)
    answer = client.get(f"/api/v1/devices/{agent.device_id}/table", headers={"Accept": PARQUET})
    assert answer.headers["content-type"] == PARQUET
    columns = parquet.read_table(io.BytesIO(answer.content)).to_pydict()
    assert sorted(columns["out_channels"]) == [8, 16, 24]
    assert all(value == pytest.approx(10.0) for value in columns["latency_us"])


def _spoilt(data: dict[str, Any], path: str, value: object) -> str:
    *parents, last = path.split(".")
    place: Any = data
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("rows.0.latency_us", float("nan"), "latency_us"),
        ("rows.0.latency_us", -1.0, "latency_us"),
        ("rows.0.latency_us", 1e12, "rows.0.latency_us"),
        ("rows.0.key", "short", "rows.0.key"),
        ("rows.0.features", {}, "rows.0.features"),
        ("rows.0.features.macs", "many", "rows.0.features.macs"),
        ("device.runtime_version", "9", "device.runtime_version"),
        ("rows", 5, "table"),
        ("calibration.b", -1, "b"),
    ],
)
def test_a_wrong_table_names_the_field_and_changes_nothing(
    agent: HandAgent, client: TestClient, store: Store, path: str, value: object, field: str
) -> None:
    table = _filled(agent, store)
    twin = HandAgent(client, store, "twin")
    answer = client.post(
        f"/api/v1/devices/{twin.device_id}/table",
        content=_spoilt(table.to_json(), path, value),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    with store.read() as tx:
        assert not latency.table(tx, twin.device_id).rows


@pytest.mark.parametrize(("kind", "content"), [(PARQUET, b"PAR1 not really"), ("application/json", b"{")])
def test_no_table_at_all(agent: HandAgent, client: TestClient, kind: str, content: bytes) -> None:
    path = f"/api/v1/devices/{agent.device_id}/table"
    answer = client.post(path, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "table")


@pytest.mark.sandbox
def test_a_network_is_opened_in_the_sandbox_alone_and_once(
    agent: HandAgent, client: TestClient, model: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the server itself opened a stranger's file")

    monkeypatch.setattr("compress.importing.normalise.parse", never)
    path = f"/api/v1/devices/{agent.device_id}/predict"
    first = client.post(path, json={"model": model})
    assert first.status_code == 200, first.text
    assert len(first.json()["blocks"]) > 3
    assert len(list(Blobs(settings.data_dir).root.glob("*/*.blocks-simulated-*.json"))) == 1
    predictions._blocks.cache_clear()
    monkeypatch.setattr("service.uploads.sandbox.run", never)
    assert client.post(path, json={"model": model}).json() == first.json()


def test_predict_fills_what_is_missing_so_that_the_next_has_coverage_1(
    agent: HandAgent, client: TestClient, model: str
) -> None:
    path = f"/api/v1/devices/{agent.device_id}/predict"
    before = client.post(path, json={"model": model}).json()
    assert (before["coverage"], before["latency_ms"]) == (0, None)
    assert before["missing"] > 0
    assert agent.ask().status_code == 204, "nothing was asked for"

    client.post(path, json={"model": model, "fill": True})
    _measure_all(agent)
    after = client.post(path, json={"model": model}).json()
    assert (after["coverage"], after["missing"]) == (1, 0)
    assert {block["source"] for block in after["blocks"]} == {"measured"}
    assert after["low_ms"] <= after["latency_ms"] <= after["high_ms"]
    assert after["latency_ms"] == pytest.approx(sum(block["latency_ms"] for block in after["blocks"]))
    assert {"conv0", "conv1", "conv2", "head"} <= {layer for block in after["blocks"] for layer in block["layers"]}


def test_predict_says_what_cannot_be_timed(agent: HandAgent, client: TestClient, model: str) -> None:
    path = f"/api/v1/devices/{agent.device_id}/predict"
    client.post(path, json={"model": model, "fill": True})
    lease = agent.lease()
    for item in lease["items"][1:]:
        agent.put_ok(lease, item["key"])
    failed = {"epoch": lease["epoch"], "failure": "error", "reason": "no such kernel"}
    agent.put(lease, lease["items"][0]["key"], failed)
    agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]})
    shown = client.post(path, json={"model": model, "fill": True}).json()
    assert any("no such kernel" in warning for warning in shown["warnings"])
    assert agent.ask().status_code == 204, "it is not asked for again"


def test_a_prediction_by_common_rules_says_so() -> None:
    here, lacking = (DeviceConfig("phone", "simulated", name, "1") for name in ("simulated", "of-a-phone"))
    blocks = ((("conv",), conv(8)),)
    _, usual = predictions.predict(LatencyTable(here), blocks)
    _, shown = predictions.predict(LatencyTable(lacking), blocks)
    (told,) = set(shown.warnings) - set(usual.warnings)
    assert f"{lacking.name}: the runtime of-a-phone is not installed on the server" in told


def test_the_servers_runtime_answers_for_a_device_with_its_version_alone_and_says_so(
    agent: HandAgent, client: TestClient, model: str
) -> None:
    shown = client.post(f"/api/v1/devices/{agent.device_id}/predict", json={"model": model}).json()
    assert any("has not been asked yet" in warning for warning in shown["warnings"])
    query = {"device": agent.device_id}
    before = client.get(f"/api/v1/models/{model}/preflight", params=query).json()
    assert any("has not been asked yet" in warning for warning in before["warnings"])
    newer = enrolment(runtimes=[OFFER | {"version": "2"}])
    assert agent.call("PUT", f"/agents/{agent.id}", newer).status_code == 200
    shown = client.post(f"/api/v1/devices/{agent.device_id}/predict", json={"model": model, "fill": True}).json()
    assert (shown["latency_ms"], shown["blocks"]) == (None, [])
    assert any("is being asked now" in warning for warning in shown["warnings"])
    refused = client.get(f"/api/v1/models/{model}/preflight", params=query)
    assert (refused.status_code, refused.json()["code"]) == (409, "runtime_missing")
    assert "has not reported yet" in refused.text
    assert "simulated 2" in refused.text


def test_predict_of_what_is_not_there(agent: HandAgent, client: TestClient, model: str) -> None:
    path = f"/api/v1/devices/{agent.device_id}/predict"
    assert client.post(path, json={"model": "absent"}).status_code == 404
    assert client.post("/api/v1/devices/absent/predict", json={"model": model}).status_code == 404
    assert client.post(path, json={"model": model, "colour": 1}).json()["errors"][0]["field"] == "colour"


def test_a_model_is_measured_whole_and_calibrates_the_table(
    agent: HandAgent, client: TestClient, store: Store, model: str
) -> None:
    client.post(f"/api/v1/devices/{agent.device_id}/predict", json={"model": model, "fill": True})
    _measure_all(agent)
    asked = client.post(
        f"/api/v1/devices/{agent.device_id}/measurements", json={"model": model}, headers={"Idempotency-Key": "m"}
    )
    assert asked.status_code == 202
    assert asked.headers["Location"] == f"/api/v1/measurements/{asked.json()['id']}"
    again = client.post(
        f"/api/v1/devices/{agent.device_id}/measurements", json={"model": model}, headers={"Idempotency-Key": "m"}
    )
    assert again.json()["id"] == asked.json()["id"]
    assert client.get(asked.headers["Location"]).json()["state"] == "queued"
    lease = agent.lease()
    (item,) = lease["items"]
    assert (item["kind"], item.get("single_sha256"), lease["anchors"]) == ("network", None, [])
    assert lease["protocol"]["min_rounds"] == 20
    assert client.get(asked.headers["Location"]).json()["state"] == "running"
    content = agent.call("GET", f"/leases/{lease['id']}/files/{item['sha256']}").content
    assert content == classifier()
    agent.put(lease, item["key"], network_result(lease["epoch"], 150.0))
    agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]})
    done = client.get(asked.headers["Location"]).json()
    assert (done["state"], done["rounds"]) == ("done", 5)
    assert done["low_ms"] == done["latency_ms"] == done["high_ms"] == pytest.approx(0.15)
    with store.read() as tx:
        assert latency.table(tx, agent.device_id).calibration.networks == 1


@pytest.fixture
def two(agent: HandAgent, store: Store, settings: Settings) -> str:
    """A measurement of two networks."""
    blobs = Blobs(settings.data_dir)
    stored = {name: blobs.put_bytes(name.encode()) for name in ("original", "pruned")}
    with store.begin() as tx:
        for blob in stored.values():
            blobs.record(tx, blob)
        shas = {name: blob.sha256 for name, blob in stored.items()}
        return measurements.measure(tx, agent.device_id, shas, BurstProtocol(min_rounds=7, max_rounds=7))


def _state(store: Store, measurement_id: str) -> str:
    with store.read() as tx:
        return measurements.measurement(tx, measurement_id).state


def test_networks_of_one_measurement_go_together_and_before_blocks(agent: HandAgent, store: Store, two: str) -> None:
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease(max_items=1)
    assert [item["kind"] for item in lease["items"]] == ["network", "network"]
    for item, latency_us in zip(lease["items"], (100.0, 50.0), strict=True):
        agent.put(lease, item["key"], network_result(lease["epoch"], latency_us))
    with store.read() as tx:
        samples = measurements.measurement(tx, two).samples()
    assert {name: sample.timing().quiet_us for name, sample in samples.items()} == {"original": 100.0, "pruned": 50.0}


def test_a_lost_measurement_is_timed_again_as_a_whole(
    agent: HandAgent, store: Store, two: str, clock: HandClock
) -> None:
    lease = agent.lease()
    agent.put(lease, lease["items"][0]["key"], network_result(lease["epoch"], 100.0))
    clock.advance(31)
    with store.begin() as tx:
        agent_leases.sweep(tx)
    assert _state(store, two) == "queued"
    clock.advance(5)
    agent.beat()
    again = agent.lease()
    assert [item["key"] for item in again["items"]] == [item["key"] for item in lease["items"]]
    late = agent.put(lease, lease["items"][1]["key"], network_result(lease["epoch"], 1.0))
    assert late.status_code == 410
    for item in again["items"]:
        agent.put(again, item["key"], network_result(again["epoch"], 70.0))
    assert _state(store, two) == "done"


def test_a_network_that_crashes_fails_the_measurement_once_the_lease_has_told_all(
    agent: HandAgent, store: Store, two: str
) -> None:
    lease = agent.lease()
    first, second = lease["items"]
    agent.put(lease, first["key"], {"epoch": lease["epoch"], "failure": "crash", "reason": "signal SIGSEGV"})
    assert _state(store, two) == "running", "the lease may tell of more"
    agent.put(lease, second["key"], network_result(lease["epoch"], 100.0))
    assert _state(store, two) == "failed"
    with store.read() as tx:
        ended = measurements.measurement(tx, two)
        assert ended.failure == {"kind": "crash", "network": "original", "reason": "signal SIGSEGV"}
        assert ended.failures() == {"original": Failure("original", "signal SIGSEGV", "crash")}
        assert ended.samples() == {}, "the networks were not timed together"


@pytest.mark.parametrize("refused", [["pruned"], ["original", "pruned"]])
def test_networks_that_the_runtime_refuses_do_not_keep_the_others(
    agent: HandAgent, store: Store, two: str, refused: list[str]
) -> None:
    lease = agent.lease()
    failure = {"epoch": lease["epoch"], "failure": "error", "reason": "no such kernel"}
    for name, item in zip(("original", "pruned"), lease["items"], strict=True):
        agent.put(lease, item["key"], failure if name in refused else network_result(lease["epoch"], 100.0))
    assert agent.call("POST", f"/leases/{lease['id']}/complete", {"epoch": lease["epoch"]}).status_code == 200
    assert _state(store, two) == ("failed" if len(refused) == 2 else "done")
    with store.read() as tx:
        ended = measurements.measurement(tx, two)
        assert ended.failures().keys() == set(refused)
        assert ended.samples().keys() == {"original", "pruned"} - set(refused)


def test_a_lost_measurement_forgets_what_was_refused(
    agent: HandAgent, store: Store, two: str, clock: HandClock
) -> None:
    lease = agent.lease()
    failure = {"epoch": lease["epoch"], "failure": "error", "reason": "out of memory, perhaps"}
    agent.put(lease, lease["items"][0]["key"], failure)
    clock.advance(31)
    with store.begin() as tx:
        agent_leases.sweep(tx)
    clock.advance(5)
    agent.beat()
    again = agent.lease()
    assert len(again["items"]) == 2
    for item in again["items"]:
        agent.put(again, item["key"], network_result(again["epoch"], 70.0))
    with store.read() as tx:
        assert measurements.measurement(tx, two).failures() == {}
    assert _state(store, two) == "done"


def test_nobody_waits_for_a_cancelled_measurement(agent: HandAgent, store: Store, two: str) -> None:
    lease = agent.lease()
    assert agent.beat(lease["id"]) == "continue"
    with store.begin() as tx:
        measurements.cancel(tx, two)
    assert agent.beat(lease["id"]) == "cancel"
    body = {"epoch": lease["epoch"], "error_class": "cancelled"}
    assert agent.call("POST", f"/leases/{lease['id']}/fail", body).status_code == 200
    assert agent.ask().status_code == 204


def test_too_many_networks_for_one_lease(agent: HandAgent, store: Store) -> None:
    with store.begin() as tx, pytest.raises(ValueError, match="networks"):
        measurements.measure(tx, agent.device_id, {}, BurstProtocol())


def test_a_device_is_deleted_unless_it_is_busy_or_wanted(
    agent: HandAgent, client: TestClient, store: Store, uploaded: Uploaded
) -> None:
    target = {"device": uploaded.device_id, "max_latency_ratio": 0.5}
    queue(store, uploaded, targets=[target])
    wanted = client.delete(f"/api/v1/devices/{uploaded.device_id}")
    assert (wanted.status_code, wanted.json()["code"]) == (409, "referenced")
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    assert client.delete(f"/api/v1/devices/{agent.device_id}").json()["code"] == "busy"
    agent.finish(lease)
    assert client.delete(f"/api/v1/devices/{agent.device_id}").status_code == 204
    assert client.get(f"/api/v1/devices/{agent.device_id}").status_code == 404
    with store.read() as tx:
        assert tx.session.query(latency.LatencyRow).count() == 0


def test_an_agent_is_told_of_its_deleted_device_and_goes_on_with_the_others(client: TestClient, store: Store) -> None:
    offers = [OFFER, {**OFFER, "settings": {"threads": 2, "kind": "simulated"}}]
    agent = HandAgent(client, store, "pair", runtimes=offers)
    gone, kept = agent.device_ids
    assert client.delete(f"/api/v1/devices/{gone}").status_code == 204
    fill(store, kept, [conv(8)])
    assert agent.lease()["device_id"] == kept, "it does not know yet, and asks for both"
    for _ in range(2):  # an answer may get lost
        answer = agent.call("POST", f"/agents/{agent.id}/heartbeat", {"state": "idle"}).json()
        assert answer == {"action": "removed", "device_ids": [gone]}
    again = agent.call("PUT", f"/agents/{agent.id}", enrolment("pair", runtimes=offers)).json()["device_ids"]
    assert (again[1], gone in again, len(set(again))) == (kept, False, 2)
    answer = agent.call("POST", f"/agents/{agent.id}/heartbeat", {"state": "idle"}).json()
    assert answer == {"action": "continue"}


def test_agents_come_in_pages_in_the_order_asked_for(
    agent: HandAgent, client: TestClient, store: Store, clock: HandClock
) -> None:
    clock.advance(1)
    early = HandAgent(client, store, "a-bench")

    def page(**query: Any) -> tuple[list[str], int]:
        found = client.get("/api/v1/agents", params=query).json()
        assert (found["page"], found["page_size"]) == (query.get("page", 1), query.get("page_size", 50))
        return [item["id"] for item in found["items"]], found["total"]

    assert page() == ([early.id, agent.id], 2)
    assert page(sort="created_at") == ([agent.id, early.id], 2)
    assert page(page_size=1, page=2) == ([agent.id], 2)
    assert client.get("/api/v1/agents?sort=self_test").status_code == 422


def test_a_removed_agent_loses_its_credentials_and_its_devices_stay(
    agent: HandAgent, client: TestClient, store: Store
) -> None:
    assert [shown["id"] for shown in client.get("/api/v1/agents").json()["items"]] == [agent.id]
    assert client.delete(f"/api/v1/agents/{agent.id}").status_code == 204
    assert agent.ask().status_code == 401
    with store.read() as tx:
        assert devices.state(tx, devices.get(tx, agent.device_id)) == "offline"


def test_agents_see_no_devices_and_nobody_sees_them_without_a_token(agent: HandAgent, client: TestClient) -> None:
    for path in ("", f"/{agent.device_id}", f"/{agent.device_id}/table"):
        assert client.get(f"/api/v1/devices{path}", headers=bearer(agent.secret)).status_code == 403
        assert client.get(f"/api/v1/devices{path}", headers=bearer("nl_u_none")).status_code == 401
