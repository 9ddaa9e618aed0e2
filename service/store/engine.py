"""Store: transactions over SQLite or PostgreSQL, and the base of all tables.

    with store.begin() as tx:       # writes: one transaction; SQLite takes the writer's lock at its start
        job = jobs.create(tx, ...)  # each file beside this one has a table and its functions
        tx.emit("job:" + job.id, "job.state", {"state": "queued"})
    with store.read() as tx:        # reads: one consistent snapshot
        jobs.get(tx, job_id)

`tx.now` is the database's clock, read once per transaction, so that the clocks of several servers need not agree.
Events get their numbers just before the commit, so that numbers have no gaps and become visible in order
(store/events.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from service.store import events
from service.store.base import Tx

BUSY_TIMEOUT_S = 5.0
"""Time for which a writer waits for a lock before the client is told to retry (503)."""

Clock = Callable[[Connection], datetime]


def database_now(connection: Connection) -> datetime:
    """Read the database's clock, in UTC."""
    if connection.dialect.name == "sqlite":
        stamp = connection.scalar(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(stamp)).replace(tzinfo=UTC)
    now = connection.scalar(text("SELECT clock_timestamp()"))
    if not isinstance(now, datetime):
        raise TypeError(f"the database's clock answered {now!r}")
    return now.astimezone(UTC)


class Store:
    """The durable state of the service. Tests of leases and deadlines pass a `clock` that they move by hand."""

    def __init__(self, engine: Engine, clock: Clock = database_now) -> None:
        self.engine = engine
        self.clock = clock

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """Open a writing transaction. It commits at the end of the `with` block and rolls back on any exception."""
        writer = self.engine.execution_options(netlathe_write=True)
        with Session(writer, expire_on_commit=False) as session, session.begin():
            tx = Tx(session, self.clock(session.connection()))
            yield tx
            session.flush()
            events.append(tx)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Open a reading transaction. It is rolled back at the end of the `with` block."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield Tx(session, self.clock(session.connection()))

    def close(self) -> None:
        """Close every connection of the pool."""
        self.engine.dispose()


def make_engine(url: str) -> Engine:
    """Create an engine with this project's settings for SQLite or PostgreSQL."""
    options: dict[str, Any] = {"json_serializer": _dump_json, "pool_size": 10, "max_overflow": 40}
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    lock_timeout = f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)}"
    return create_engine(url, pool_pre_ping=True, connect_args={"options": lock_timeout}, **options)


def _dump_json(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _set_up_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver would start transactions late and without IMMEDIATE, so _begin_sqlite starts them instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # an acknowledged job must survive a power cut
        "foreign_keys = ON",
        f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("netlathe_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
