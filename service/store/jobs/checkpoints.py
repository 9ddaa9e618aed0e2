"""Checkpoints: files in a job's folder from which a later run continues."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import ForeignKey, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx
from service.store.jobs.job_leases import Held, fence


class Checkpoint(Base):
    """The newest checkpoint of one name; `path` is relative to the job's folder."""

    __tablename__ = "checkpoints"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    path: Mapped[str] = mapped_column(String(500))
    created_at: Mapped[datetime]


def keep(tx: Tx, held: Held, name: str, path: PurePosixPath) -> None:
    """Note that a checkpoint file is complete; it replaces the earlier checkpoint with this name.

    Raises:
        LeaseLost: another conductor has the job now.
    """
    fence(tx, held)
    known = tx.session.get(Checkpoint, (held.job_id, name))
    if known is None:
        tx.session.add(Checkpoint(job_id=held.job_id, name=name, path=str(path), created_at=tx.now))
    else:
        known.path, known.created_at = str(path), tx.now
    tx.session.flush()


def of_job(tx: Tx, job_id: str) -> Mapping[str, PurePosixPath]:
    """Return the paths of a job's checkpoints by name."""
    rows = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return {row.name: PurePosixPath(row.path) for row in tx.session.execute(rows).scalars()}


def forget(tx: Tx, job_id: str) -> None:
    """Delete the checkpoints of a job that has ended."""
    tx.session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))
