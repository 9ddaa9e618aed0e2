"""Device figures: right for every device, in as many queries for many devices as for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from agent_calls import HandAgent, conv, fill
from fastapi.testclient import TestClient
from service_world import HandClock
from sqlalchemy import event, update

from hw_profiles.tables.calibration import Calibration
from service.store import Store
from service.store.devices import devices, latency
from service.store.devices.device_figures import Figures, figures
from service.store.devices.work_items import WorkItem

TABLES = ("latency_rows", "calibrations", "work_items")


@contextmanager
def questions(store: Store) -> Iterator[list[str]]:
    """To the tables that figures come from, while the block runs."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.extend(name for name in TABLES if name in statement)

    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def _set_state(store: Store, key: str, state: str) -> None:
    with store.begin() as tx:
        tx.session.execute(update(WorkItem).where(WorkItem.key == key).values(state=state))


def test_every_device_has_its_own(client: TestClient, store: Store, clock: HandClock) -> None:
    busy, idle = HandAgent(client, store), HandAgent(client, store, "twin")
    ops = [conv(width) for width in (8, 16, 24, 32, 40)]
    fill(store, busy.device_id, ops)
    busy.finish(busy.lease(max_items=2))
    _set_state(store, ops[2].key, "failed")
    _set_state(store, ops[3].key, "poisoned")
    with store.begin() as tx:
        for error in (0.5, 0.25):
            latency.record_calibration(tx, busy.device_id, Calibration(loo_mape=error))
    with store.read() as tx:
        found = figures(tx)
        assert figures(tx, idle.device_id) == {idle.device_id: Figures()}
    assert found == {busy.device_id: Figures(2, 1, 2, 0.25), idle.device_id: Figures()}
    assert (found[busy.device_id].coverage, found[idle.device_id].coverage) == (2 / 5, 0.0)
    shown = {item["id"]: item for item in client.get("/api/v1/devices").json()["items"]}
    assert shown[busy.device_id] == client.get(f"/api/v1/devices/{busy.device_id}").json()
    row = shown[busy.device_id]
    assert [row[name] for name in ("coverage", "error_mape", "outstanding", "refused")] == [0.4, 0.25, 1, 2]


def test_the_page_counts_one_block_as_one(client: TestClient, store: Store) -> None:
    agent, ops = HandAgent(client, store), [conv(width) for width in (8, 16, 24, 32)]
    fill(store, agent.device_id, ops[:3])
    agent.finish(agent.lease(max_items=1))
    _set_state(store, ops[1].key, "failed")
    page = client.get(f"/devices/{agent.device_id}").text
    for text in (">1 block could not be timed<", "1 block measured", "1 block waiting"):
        assert text in page.replace("<p>", ""), text
    fill(store, agent.device_id, ops[3:])
    assert "2 blocks waiting" in client.get(f"/devices/{agent.device_id}").text


def test_what_was_measured_on_another_configuration_does_not_count(client: TestClient, store: Store) -> None:
    agent = HandAgent(client, store)
    fill(store, agent.device_id, [conv(8)])
    agent.finish(agent.lease())
    with store.begin() as tx:
        latency.record_calibration(tx, agent.device_id, Calibration(loo_mape=0.5))
        devices.get(tx, agent.device_id).config_id = "another"
    with store.read() as tx:
        assert figures(tx)[agent.device_id] == Figures()


@pytest.mark.parametrize("path", ["/api/v1/devices", "/devices"])
def test_a_list_asks_each_table_once_however_many_devices_there_are(
    client: TestClient, store: Store, path: str
) -> None:
    for name in ("bench", "twin", "triplet"):
        HandAgent(client, store, name)
    with questions(store) as asked:
        assert client.get(path).text.count("simulated-t1-fp32") >= 3
    assert sorted(asked) == sorted(TABLES)
