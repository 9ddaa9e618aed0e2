"""Base class of all tables, and the transaction in which their functions work."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, MetaData
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A time zone aware datetime in UTC; SQLite stores no zones, so the zone is added on reading."""

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
    """Base class of every table. Constraints have names, so that migrations can find them."""

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
    """One transaction. `now` is the database's time at the start of the transaction."""

    session: Session
    now: datetime
    events: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def emit(self, topic: str, type: str, data: Mapping[str, Any]) -> None:
        """Append an event to the log with this transaction. `topic` is `job:<id>` or `device:<id>`."""
        self.events.append((topic, type, data))


def new_id(kind: str) -> str:
    """Return a new id such as `job_3f9c...`: 80 random bits, never reused."""
    return f"{kind}_{secrets.token_hex(10)}"
