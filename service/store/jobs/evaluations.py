"""Evaluations: the results of a job's candidates, numbered from 1 in the order in which they were recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Select, String, Text, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, mapped_column

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.store.base import Base, Tx, new_id
from service.store.jobs.job_leases import Held, fence
from service.store.jobs.jobs import Job, topic
from workers.progress import Evaluated


class EvaluationRow(Base):
    """One evaluation. `candidate` is the whole proposal."""

    __tablename__ = "evaluations"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    candidate_id: Mapped[str] = mapped_column(String(128))
    strategy: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    fidelity: Mapped[str] = mapped_column(String(4))
    candidate: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    feasible: Mapped[bool]
    cached: Mapped[bool]
    elapsed_s: Mapped[float]
    reason: Mapped[str] = mapped_column(Text)
    network: Mapped[str | None] = mapped_column(String(64))
    table_epochs: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("job_id", "number"), UniqueConstraint("job_id", "candidate_id"))

    @property
    def searched(self) -> bool:
        """True for an evaluation of the search, false for the training or timing of a finalist."""
        return Candidate.from_json(self.candidate).searched

    @property
    def origin(self) -> str:
        """The id of the search's candidate, which the training and the timing of a finalist name as their parent."""
        return self.candidate_id if self.searched else str(self.candidate["parents"][0])

    @property
    def evaluated(self) -> Evaluated:
        """The message from which this row was made."""
        evaluation = Evaluation(
            candidate=Candidate.from_json(self.candidate),
            status=Status(self.status),
            metrics=self.metrics,
            elapsed_s=self.elapsed_s,
            reason=self.reason,
            network=self.network,
        )
        return Evaluated(self.strategy, evaluation, self.feasible, self.cached, self.table_epochs)


def add(tx: Tx, held: Held, evaluated: Evaluated) -> EvaluationRow | None:
    """Record the result of a candidate and return its row; None if the result was recorded already.

    Raises:
        LeaseLost: another conductor has the job now.
    """
    fence(tx, held)
    evaluation = evaluated.evaluation
    if of_candidate(tx, held.job_id, evaluation.candidate.id) is not None:
        return None
    # A new evaluation is progress, so earlier crashes no longer count. The budget covers the search only, not
    # training and timing the finalists.
    paid = evaluation.candidate.searched and not evaluated.cached
    fence(tx, held, evaluations_done=Job.evaluations_done + int(paid), crashes=0)
    newest = select(func.max(EvaluationRow.number)).where(EvaluationRow.job_id == held.job_id)
    number = (tx.session.execute(newest).scalar_one() or 0) + 1
    row = EvaluationRow(
        id=new_id("evl"),
        job_id=held.job_id,
        number=number,
        candidate_id=evaluation.candidate.id,
        strategy=evaluated.strategy,
        status=evaluation.status.value,
        fidelity=evaluation.candidate.fidelity,
        candidate=evaluation.candidate.to_json(),
        metrics=dict(evaluation.metrics),
        feasible=evaluated.feasible,
        cached=evaluated.cached,
        elapsed_s=evaluation.elapsed_s,
        reason=evaluation.reason,
        network=evaluation.network,
        table_epochs=dict(evaluated.table_epochs),
        created_at=tx.now,
    )
    tx.session.add(row)
    tx.session.flush()
    tx.emit(topic(held.job_id), "evaluation.added", _told(row))
    return row


def _told(row: EvaluationRow) -> Mapping[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "strategy": row.strategy,
        "status": row.status,
        "fidelity": row.fidelity,
        "metrics": row.metrics,
        "feasible": row.feasible,
    }


def of_candidate(tx: Tx, job_id: str, candidate_id: str) -> EvaluationRow | None:
    """Return the evaluation of a candidate, or None."""
    rows = select(EvaluationRow).where(EvaluationRow.job_id == job_id, EvaluationRow.candidate_id == candidate_id)
    return tx.session.execute(rows).scalar_one_or_none()


def selected(job_id: str, since: int = 0) -> Select[EvaluationRow]:
    """Select the evaluations of a job with a number above `since`."""
    return select(EvaluationRow).where(EvaluationRow.job_id == job_id, EvaluationRow.number > since)


def of_job(tx: Tx, job_id: str) -> Sequence[EvaluationRow]:
    """Return all evaluations of a job, by number."""
    return tx.session.execute(selected(job_id).order_by(EvaluationRow.number)).scalars().all()
