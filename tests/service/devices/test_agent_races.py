"""One lease a machine and one result a key, whoever races, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from agent_calls import HandAgent, block_result, conv, fill, network_result
from fastapi.testclient import TestClient
from postgres_server import NoPostgres, running
from service_world import HandClock

from hw_profiles.timing.protocol import BurstProtocol
from service.app import create_app
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store, make_engine
from service.store.devices import agent_leases, devices, latency, measurements, work_items
from service.store.devices.agent_leases import AgentLease
from service.store.migrate import migrate

RACERS = 8


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    try:
        with running() as url:
            engine = make_engine(url.format(database="postgres"))
            migrate(engine)
            engine.dispose()
            yield url.format(database="postgres")
    except NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgres"])
def raced(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path, clock: HandClock
) -> Iterator[tuple[Store, HandAgent]]:
    """A store on either database, and an agent over it."""
    settings = Settings(data_dir=tmp_path / "raced", event_poll_s=3600.0)  # nobody listens to events here
    settings.data_dir.mkdir()
    url = settings.url
    if request.param == "postgres":
        url = request.getfixturevalue("postgres")
    else:
        (settings.data_dir / "netlathe.db").write_bytes(migrated_file.read_bytes())
    store = Store(make_engine(url), clock)
    with TestClient(create_app(settings, store), base_url="http://127.0.0.1") as http:
        yield store, HandAgent(http, store, f"m-{tmp_path.name[-20:].lower().replace('_', '-')}"[:32].strip("-"))
    store.close()


def _race(call: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(call, range(RACERS)))


def test_of_many_requests_one_lease_comes(raced: tuple[Store, HandAgent]) -> None:
    store, agent = raced
    fill(store, agent.device_id, [conv(width) for width in (8, 16, 24)])
    answers = _race(lambda _: agent.ask(max_items=1))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1, "every answer is the same, untouched lease"
    with store.read() as tx:
        active = tx.session.query(AgentLease).filter_by(agent_id=agent.id, state="active").count()
    assert active == 1


def test_of_many_results_one_counts(raced: tuple[Store, HandAgent]) -> None:
    store, agent = raced
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    key = lease["items"][0]["key"]
    answers = _race(lambda number: agent.put(lease, key, block_result(lease["epoch"], 10.0 + number)))
    assert {answer.status_code for answer in answers} == {200}
    with store.read() as tx:
        rows = tx.session.query(latency.LatencyRow).filter_by(device_id=agent.device_id).count()
    assert rows == 1


def test_expiry_races_with_a_heartbeat_and_one_of_them_wins(raced: tuple[Store, HandAgent], clock: HandClock) -> None:
    store, agent = raced
    fill(store, agent.device_id, [conv(8)])
    lease = agent.lease()
    clock.advance(31)

    def sweep_or_beat(number: int) -> str:
        if number % 2:
            return agent.beat(lease["id"])
        with store.begin() as tx:
            agent_leases.sweep(tx)
        return "cancel"

    assert set(_race(sweep_or_beat)) == {"cancel"}
    with store.read() as tx:
        item = work_items.by_key(tx, agent.device_id, conv(8).key)
    assert item is not None
    assert (item.state, item.attempt) == ("queued", 1), "the attempt was counted once"


def test_the_whole_way_of_a_measurement(raced: tuple[Store, HandAgent], tmp_path: Path) -> None:
    store, agent = raced
    ops = [conv(width) for width in (8, 16, 24)]
    fill(store, agent.device_id, ops)
    agent.finish(agent.lease(), {op.key: 10.0 * (i + 1) for i, op in enumerate(ops)})
    blobs = Blobs(tmp_path)
    stored = {f"n{i}": blobs.put_bytes(f"network {i} of {agent.id}".encode()) for i in range(3)}
    with store.begin() as tx:
        for blob in stored.values():
            blobs.record(tx, blob)
        shas = {name: blob.sha256 for name, blob in stored.items()}
        known = {f"n{i}": ops[: i + 1] for i in range(3)}
        asked = measurements.measure(tx, agent.device_id, shas, BurstProtocol(), known)
    lease = agent.lease()
    # sums of 10, 30 and 60 us, behind a call of 70 us
    for item, latency_us in zip(lease["items"], (80.0, 100.0, 130.0), strict=True):
        agent.put(lease, item["key"], network_result(lease["epoch"], latency_us))
    with store.read() as tx:
        assert measurements.measurement(tx, asked).state == "done"
        table = latency.table(tx, agent.device_id)
        assert devices.state(tx, devices.get(tx, agent.device_id)) == "busy"
    assert table.calibration.networks == 3
    assert table.calibration.a_us == pytest.approx(70.0, abs=5.0)
