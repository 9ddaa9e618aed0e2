"""The event log. It is append-only and numbered without gaps. Each event is written in the same transaction as the
change that it reports.

Numbers come from one row that the last statement of a transaction locks until the commit. A reader that sees number n
therefore sees all lower numbers. This also holds on PostgreSQL, whose sequences would not guarantee it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, String, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class EventNumber(Base):
    """The number of the newest event, in a table with one row."""

    __tablename__ = "event_numbers"
    id: Mapped[int] = mapped_column(primary_key=True)
    newest: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """One event. `topic` is `job:<id>` or `device:<id>`; the contract lists the values of `type`."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    topic: Mapped[str] = mapped_column(String(80), index=True)
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


def append(tx: Tx) -> None:
    """Number and write the events that `tx.emit` collected; Store.begin calls this last in a transaction."""
    if not tx.events:
        return
    count = len(tx.events)
    moved = tx.session.execute(
        update(EventNumber).values(newest=EventNumber.newest + count).returning(EventNumber.newest)
    ).scalar_one_or_none()
    if moved is None:
        raise LookupError("the table event_numbers has lost its row")
    tx.session.add_all(
        Event(number=moved - count + 1 + index, at=tx.now, topic=topic, type=type, data=dict(data))
        for index, (topic, type, data) in enumerate(tx.events)
    )
    tx.events.clear()


def newest(tx: Tx) -> int:
    """Return the number of the newest event; 0 if there is no event yet."""
    return tx.session.execute(select(EventNumber.newest)).scalar_one()


def oldest_kept(tx: Tx) -> int:
    """Return the number of the oldest event that is still kept; if no event is kept, the newest number plus one."""
    oldest = tx.session.execute(select(func.min(Event.number))).scalar_one()
    return newest(tx) + 1 if oldest is None else oldest


def after(tx: Tx, number: int, limit: int) -> Sequence[Event]:
    """Return the first `limit` events above `number`, in order."""
    rows = select(Event).where(Event.number > number).order_by(Event.number).limit(limit)
    return tx.session.execute(rows).scalars().all()


def of_topic(tx: Tx, topic: str, types: Sequence[str], before: int | None, tail: int) -> Sequence[Event]:
    """Return the last `tail` events of a topic that have one of the types and a number below `before`, the oldest
    first.
    """
    rows = select(Event).where(Event.topic == topic, Event.type.in_(types))
    if before is not None:
        rows = rows.where(Event.number < before)
    found = tx.session.execute(rows.order_by(Event.number.desc()).limit(tail)).scalars().all()
    return found[::-1]


def prune(tx: Tx, older_than: datetime, limit: int = 500) -> int:
    """Delete at most `limit` events older than the given time; return the number deleted. Small batches hold the
    writer's lock only briefly.
    """
    old = select(Event.number).where(Event.at < older_than).order_by(Event.number).limit(limit)
    numbers = tx.session.execute(old).scalars().all()
    tx.session.execute(delete(Event).where(Event.number.in_(numbers)))
    return len(numbers)
