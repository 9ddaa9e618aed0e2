"""Conductors: the processes that run jobs. Each reports every few seconds that it is alive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from sqlalchemy import String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx

Executor: TypeAlias = Literal["starting", "ok", "down"]
ALIVE_FOR = timedelta(seconds=30)


class Conductor(Base):
    """One running conductor. `executor` is the state of its executor."""

    __tablename__ = "conductors"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    executor: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


def seen(tx: Tx, conductor_id: str, executor: Executor) -> None:
    """Note that a conductor is alive, and delete conductors that have been silent for a long time."""
    tx.session.execute(delete(Conductor).where(Conductor.seen_at < tx.now - 10 * ALIVE_FOR))
    known = tx.session.get(Conductor, conductor_id)
    if known is None:
        tx.session.add(Conductor(id=conductor_id, executor=executor, started_at=tx.now, seen_at=tx.now))
    else:
        known.executor, known.seen_at = executor, tx.now


def left(tx: Tx, conductor_id: str) -> None:
    """Delete the row of a conductor that is about to shut down."""
    tx.session.execute(delete(Conductor).where(Conductor.id == conductor_id))


def alive(tx: Tx) -> Sequence[Conductor]:
    """Return the conductors that have reported within ALIVE_FOR."""
    rows = select(Conductor).where(Conductor.seen_at > tx.now - ALIVE_FOR).order_by(Conductor.id)
    return tx.session.execute(rows).scalars().all()


def best(found: Sequence[Conductor]) -> Executor:
    """Return the best executor state of these conductors."""
    states = {conductor.executor for conductor in found}
    if "ok" in states:
        return "ok"
    return "starting" if "starting" in states else "down"
