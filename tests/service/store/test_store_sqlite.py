"""The store's contract on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine, text

from service.store import Store, make_engine
from service.store.devices import devices, work_items
from service.store.migrate import configuration, migrate
from service.testing import StoreContract

NOW = "'2026-01-01 00:00:00.000000'"
AGENT = (
    "INSERT INTO agents (id, name, machine, fingerprint, protocol, state, self_test, drain, done, total, created_at,"
    f" last_seen_at) VALUES ('agt_1', 'a', 'm', 'f', 1, 'idle', '{{}}', 0, 0, 0, {NOW}, {NOW})"
)
DEVICE = (
    "INSERT INTO devices (id, name, agent_id, machine, kind, runtime, runtime_version, threads, dtype, emulated,"
    " options, config_id, epoch, anchors, scale, refused, quarantined, shown_state, created_at, last_seen_at) VALUES"
    f" ('dev_1', 'd', 'agt_1', 'm', 'cpu', 'r', '1', 1, 'fp32', 0, '[]', 'c', 0, '[]', 1, 0, 0, 'offline', {NOW},"
    f" {NOW})"
)
ITEM = (
    "INSERT INTO work_items (id, device_id, kind, key, priority, state, attempt, available_at, reason, created_at)"
    f" VALUES (:id, 'dev_1', :kind, 'k' || :id, 1, :state, 0, {NOW}, '', {NOW})"
)


class TestSqlite(StoreContract):
    @pytest.fixture
    def engine(self, tmp_path: Path, migrated_file: Path) -> Iterator[Engine]:
        shutil.copy(migrated_file, tmp_path / "store.db")
        engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
        yield engine
        engine.dispose()

    def test_it_writes_ahead_and_keeps_what_it_acknowledged(self, engine: Engine) -> None:
        with engine.connect() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("PRAGMA synchronous")) == 2
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1
            assert connection.scalar(text("PRAGMA busy_timeout")) == 5000

    def test_a_writer_does_not_stop_readers(self, engine: Engine) -> None:
        with engine.execution_options(netlathe_write=True).begin() as writing:
            writing.execute(text("UPDATE event_numbers SET newest = 7"))
            with engine.begin() as reading:
                assert reading.scalar(text("SELECT newest FROM event_numbers")) == 0


def test_what_an_older_database_has_queued_stays_queued(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'old.db'}")
    config = configuration()
    with engine.execution_options(netlathe_write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text(AGENT))
        connection.execute(text(DEVICE))
        for number, (kind, state) in enumerate([("block", "queued"), ("block", "done"), ("network", "queued")]):
            connection.execute(text(ITEM), {"id": number, "kind": kind, "state": state})
    migrate(engine)
    with Store(engine).begin() as tx:
        work_items.drop_unwanted(tx)
        assert [item.id for item in tx.session.query(work_items.WorkItem).order_by("id")] == [0, 1, 2]
        assert devices.get(tx, "dev_1").agent_id == "agt_1"
    engine.dispose()
