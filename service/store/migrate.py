"""Migration: bring a database to the newest schema in one transaction, or leave it unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

LOCK = 0x6E6C6174
"""Number of the advisory lock that lets only one process migrate a PostgreSQL database."""


def configuration() -> Config:
    """Return Alembic's configuration, made without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def migrate(engine: Engine) -> None:
    """Run every migration that this database lacks. Concurrent callers wait for each other."""
    config = configuration()
    with migrating(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """Open a transaction for migrations. SQLite rebuilds a table to change it, and dropping the old one would delete
    the rows that belong to it; so its foreign keys are off meanwhile and checked at the end.

    Raises:
        RuntimeError: a row would be left without the row that it belongs to.
    """
    with engine.execution_options(netlathe_write=True).connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        with _foreign_keys_off(connection) if sqlite else nullcontext(), connection.begin():
            if not sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
            orphans = connection.execute(text("PRAGMA foreign_key_check")).all() if sqlite else []
            if orphans:
                raise RuntimeError(f"rows without their parents: {sorted({str(row[0]) for row in orphans})}")


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    driver = connection.connection.cursor()  # the pragma has no effect inside a transaction, which execute() begins
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.close()


def is_newest(engine: Engine) -> bool:
    """True if this database has the newest schema."""
    with engine.connect() as connection:
        at = MigrationContext.configure(connection).get_current_revision()
    return at == newest_revision()


def newest_revision() -> str:
    """Return the newest schema that this code knows."""
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    if head is None:
        raise LookupError("this installation has no migrations")
    return head
