"""Wishes: the jobs and users that wait for a queued block or question. Items without a wish leave the queue."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, ForeignKey, Integer, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx

USER = ""
"""Value that stands for a user in place of a job's id (for `predict` with `fill`); users' wishes are never
withdrawn.
"""


class Wish(Base):
    """A row which says that a job or a user is waiting for a work item. Jobs that have ended wait for no item."""

    __tablename__ = "wishes"
    item_id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), ForeignKey("work_items.id", ondelete="CASCADE"), primary_key=True
    )
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True, index=True)


def add(tx: Tx, item_ids: Iterable[int], job_id: str) -> None:
    """Note that this job waits for the items; idempotent."""
    known = set(tx.session.execute(select(Wish.item_id).where(Wish.job_id == job_id)).scalars())
    tx.session.add_all(Wish(item_id=item_id, job_id=job_id) for item_id in item_ids if item_id not in known)
    tx.session.flush()


def forget(tx: Tx, job_id: str) -> bool:
    """Delete the wishes of a job; return True if the job had any wishes."""
    gone = delete(Wish).where(Wish.job_id == job_id).returning(Wish.item_id)
    return bool(tx.session.execute(gone).scalars().all())
