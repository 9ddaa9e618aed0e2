"""Migration: bring a database to the newest schema in one transaction, or leave it unchanged."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

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
    with engine.execution_options(netlathe_write=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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
