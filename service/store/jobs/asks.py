"""Proposals: candidates that a strategy asked to have evaluated, stored before their evaluation starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint, select, update
from sqlalchemy.orm import Mapped, mapped_column

from search.candidate import Candidate
from service.store.base import Base, Tx
from service.store.jobs.evaluations import EvaluationRow
from service.store.jobs.job_leases import Held, fence
from service.store.jobs.jobs import Job
from workers.progress import Asked


class Ask(Base):
    """One proposal; `number` counts proposals within the job, from 1.

    `takeovers` is the number of times that a conductor went silent before this proposal was evaluated.
    """

    __tablename__ = "asks"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[str] = mapped_column(String(128))
    strategy: Mapped[str] = mapped_column(String(64))
    candidate: Mapped[dict[str, Any]]
    takeovers: Mapped[int] = mapped_column(default=0)

    __table_args__ = (UniqueConstraint("job_id", "candidate_id"),)


def add(tx: Tx, held: Held, asked: Asked) -> None:
    """Store a proposal.

    Raises:
        LeaseLost: another conductor has the job now.
    """
    fence(tx, held, asks_made=Job.asks_made + 1)
    number = tx.session.execute(select(Job.asks_made).where(Job.id == held.job_id)).scalar_one()
    candidate = asked.candidate
    tx.session.add(
        Ask(
            job_id=held.job_id,
            number=number,
            candidate_id=candidate.id,
            strategy=asked.strategy,
            candidate=candidate.to_json(),
        )
    )
    tx.session.flush()


def of_job(tx: Tx, job_id: str) -> Sequence[Asked]:
    """Return all proposals of a job, in the order in which they were made."""
    rows = select(Ask).where(Ask.job_id == job_id).order_by(Ask.number)
    return [Asked(row.strategy, Candidate.from_json(row.candidate)) for row in tx.session.execute(rows).scalars()]


def interrupted(tx: Tx, job_id: str) -> None:
    """Count a takeover for each open proposal of a job, because one of these proposals may have killed the last
    conductor.
    """
    done = select(EvaluationRow.candidate_id).where(EvaluationRow.job_id == job_id)
    still_open = update(Ask).where(Ask.job_id == job_id, Ask.candidate_id.not_in(done))
    tx.session.execute(still_open.values(takeovers=Ask.takeovers + 1))


def takeovers(tx: Tx, job_id: str) -> Mapping[str, int]:
    """Return the number of times that each candidate's conductor went silent, by candidate id; zeros are left out."""
    rows = select(Ask.candidate_id, Ask.takeovers).where(Ask.job_id == job_id, Ask.takeovers > 0)
    return {row.candidate_id: row.takeovers for row in tx.session.execute(rows)}
