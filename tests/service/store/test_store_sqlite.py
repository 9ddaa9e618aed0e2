"""The store's contract on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.types import TypeEngine

from service.store import Base, Store, make_engine
from service.store.base import UtcTime
from service.store.devices import devices, work_items
from service.store.migrate import configuration, migrate, migrating
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


TIME = datetime(2026, 1, 1, tzinfo=UTC)
VALUES: dict[type, Any] = {str: "x", int: 1, float: 1.0, bool: True, object: {}}
"""A value of each type; equal ones make each row belong to the one row of its parent's table."""


def _value(kind: TypeEngine[Any]) -> Any:
    return TIME if isinstance(kind, UtcTime) else VALUES[kind.python_type]


def counts(connection: Connection) -> dict[str, int]:
    """The number of rows of each table of the code that the database has."""
    here = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in here}


def test_no_row_is_lost_if_a_table_that_it_belongs_to_is_rebuilt(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(engine)
    config = configuration()
    with engine.execution_options(netlathe_write=True).begin() as connection:
        for table in Base.metadata.sorted_tables:
            if table.name != "event_numbers":  # it has its one row
                row = {column.name: _value(column.type) for column in table.columns}
                connection.execute(table.insert().values(row))
    for steps in ("0005", "0004", "0003", "head"):
        with migrating(engine) as connection:
            config.attributes["connection"] = connection
            (command.upgrade if steps == "head" else command.downgrade)(config, steps)
            lost = {name for name, count in counts(connection).items() if count == 0}
        assert lost == (set() if steps != "head" else {"fusions", "conversions"}), "only tables made again are empty"
    engine.dispose()


def test_a_migration_that_leaves_rows_without_their_parents_changes_nothing(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(engine)
    with pytest.raises(RuntimeError, match="wishes"), migrating(engine) as connection:
        connection.execute(text("INSERT INTO wishes (item_id, job_id) VALUES (1, 'job_1')"))
    with engine.connect() as connection:
        assert counts(connection)["wishes"] == 0
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()


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
