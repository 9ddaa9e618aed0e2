"""Conductors: who is running jobs, as they say themselves every few seconds."""

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
    """One running conductor. `executor` is the state of what evaluates for it."""

    __tablename__ = "conductors"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    executor: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


def seen(tx: Tx, conductor_id: str, executor: Executor) -> None:
    """A conductor says that it is alive; those that were silent for long are forgotten."""
    tx.session.execute(delete(Conductor).where(Conductor.seen_at < tx.now - 10 * ALIVE_FOR))
    known = tx.session.get(Conductor, conductor_id)
    if known is None:
        tx.session.add(Conductor(id=conductor_id, executor=executor, started_at=tx.now, seen_at=tx.now))
    else:
        known.executor, known.seen_at = executor, tx.now


def left(tx: Tx, conductor_id: str) -> None:
    """A conductor says goodbye."""
    tx.session.execute(delete(Conductor).where(Conductor.id == conductor_id))


def alive(tx: Tx) -> Sequence[Conductor]:
    """Conductors heard of within ALIVE_FOR."""
    rows = select(Conductor).where(Conductor.seen_at > tx.now - ALIVE_FOR).order_by(Conductor.id)
    return tx.session.execute(rows).scalars().all()


def best(found: Sequence[Conductor]) -> Executor:
    """The state of what evaluates: that of the one that is furthest."""
    states = {conductor.executor for conductor in found}
    if "ok" in states:
        return "ok"
    return "starting" if "starting" in states else "down"
