"""Store: transactions over SQLite or PostgreSQL, and the base of all tables.

    with store.begin() as tx:       # writes: one transaction, the writer's lock taken at once on SQLite
        job = jobs.create(tx, ...)  # the files beside this one hold a table and its functions each
        tx.emit("job:" + job.id, "job.state", {"state": "queued"})
    with store.read() as tx:        # reads: one consistent snapshot
        jobs.get(tx, job_id)

`tx.now` is the database's clock, read once a transaction, so that clocks of several servers need not
agree. Events get their numbers last, just before the commit: numbers are without gaps and become visible
in order (store/events.py).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, Engine, MetaData, create_engine, event, text
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for another's lock before the client is told to come back (503)."""

Clock = Callable[[Connection], datetime]


class UtcTime(TypeDecorator[datetime]):
    """A time zone aware datetime in UTC; SQLite has no zones, so that they are put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value!r}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of every table. Constraints have names, so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this name from the class
        datetime: UtcTime,
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


@dataclass
class Tx:
    """One transaction. `now` is the database's time at its begin."""

    session: Session
    now: datetime
    events: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def emit(self, topic: str, type: str, data: Mapping[str, Any]) -> None:
        """Append an event to the log with this transaction. `topic`: `job:<id>` or `device:<id>`."""
        self.events.append((topic, type, data))


def new_id(kind: str) -> str:
    """A fresh id such as `job_3f9c...`: 80 random bits, never reused."""
    return f"{kind}_{secrets.token_hex(10)}"


def database_now(connection: Connection) -> datetime:
    """The database's own clock, UTC."""
    if connection.dialect.name == "sqlite":
        stamp = connection.scalar(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(stamp)).replace(tzinfo=UTC)
    now = connection.scalar(text("SELECT clock_timestamp()"))
    if not isinstance(now, datetime):
        raise TypeError(f"the database's clock answered {now!r}")
    return now.astimezone(UTC)


class Store:
    """The durable truth. `clock` is injectable: tests of leases and deadlines move it by hand."""

    def __init__(self, engine: Engine, clock: Clock = database_now) -> None:
        self.engine = engine
        self.clock = clock

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A writing transaction: commits at the end of the block, rolls back on any exception."""
        from service.store import events  # events.py imports this module for Base and Tx

        writer = self.engine.execution_options(netlathe_write=True)
        with Session(writer, expire_on_commit=False) as session, session.begin():
            tx = Tx(session, self.clock(session.connection()))
            yield tx
            session.flush()
            events.append(tx)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A reading transaction; nothing it did is kept."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield Tx(session, self.clock(session.connection()))

    def close(self) -> None:
        """Close every connection of the pool."""
        self.engine.dispose()


def make_engine(url: str) -> Engine:
    """An engine with this project's settings for the two databases it runs on."""
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
    # The driver's own transaction handling would begin late and without IMMEDIATE: _begin_sqlite does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # an acknowledged job survives a power cut
        "foreign_keys = ON",
        f"busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("netlathe_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
