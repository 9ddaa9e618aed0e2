"""Jobs: their requests, states and holders. The functions that change states are in job_states.py and job_leases.py.

`status`, `progress`, the four summaries and the results on devices hold the sum of the job's events. The transaction
that writes an event also updates these columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, delete, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from service.errors import Conflict, NotFound, TooMany
from service.store.base import Base, Tx, new_id
from service.store.jobs.states import FINAL, State


class Job(Base):
    """One job. `request` is the accepted body, with names resolved to ids.

    `signal` is what the user wants of a running job. `epoch` grows whenever a conductor claims the job. Each write of a
    conductor names its epoch, so that a conductor that has lost the job cannot write.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    request: Mapped[dict[str, Any]]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    retry_of: Mapped[str | None] = mapped_column(String(40))

    state: Mapped[str] = mapped_column(String(16), default="queued")
    signal: Mapped[str] = mapped_column(String(16), default="continue")
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[datetime | None]
    epoch: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)

    verdict: Mapped[str | None] = mapped_column(String(16))
    phase: Mapped[str | None] = mapped_column(String(16))
    done: Mapped[float] = mapped_column(default=0.0)
    total: Mapped[float] = mapped_column(default=1.0)
    eta_s: Mapped[float | None]
    spent_s: Mapped[float] = mapped_column(default=0.0)
    warnings: Mapped[list[Any]]
    waiting_for: Mapped[dict[str, Any] | None]
    original: Mapped[dict[str, Any] | None]
    control: Mapped[dict[str, Any] | None]
    best: Mapped[dict[str, Any] | None]
    nearest: Mapped[dict[str, Any] | None]
    devices: Mapped[list[Any] | None]
    asks_made: Mapped[int] = mapped_column(default=0)
    evaluations_done: Mapped[int] = mapped_column(default=0)
    failure: Mapped[dict[str, Any] | None]

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_jobs_state_created_at", "state", "created_at"),)


class JobDevice(Base):
    """Links a job to the device of a target, for `GET /jobs?device=` and the deletion of a device."""

    __tablename__ = "job_devices"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    device_id: Mapped[str] = mapped_column(String(40), primary_key=True, index=True)


def topic(job_id: str) -> str:
    """Return the topic of a job's events."""
    return f"job:{job_id}"


def create(
    tx: Tx,
    request: Mapping[str, Any],
    *,
    warnings: Sequence[Any] = (),
    retry_of: str | None = None,
    max_queued: int | None = None,
) -> Job:
    """Queue a job. `request` is the body with ids; its `name` may be None. `warnings` are JSON
    (`service.jobs.warnings`).

    Raises:
        Conflict: the name is taken (code `name`).
        TooMany: `max_queued` jobs are queued already.
    """
    if max_queued is not None and counts(tx).get("queued", 0) >= max_queued:
        raise TooMany(f"{max_queued} jobs are queued already", code="queue_full", retry_after_s=60)
    job_id = new_id("job")
    name = request.get("name") or f"job-{job_id.removeprefix('job_')[:8]}"
    if find(tx, name) is not None:
        raise Conflict(f"there is a job {name!r} already", code="name")
    job = Job(
        id=job_id,
        name=name,
        request={**request, "name": name},
        model_id=request["model"],
        dataset_id=request["dataset"],
        retry_of=retry_of,
        warnings=list(warnings),
        created_at=tx.now,
    )
    tx.session.add(job)
    tx.session.flush()
    tx.session.add_all(JobDevice(job_id=job_id, device_id=target["device"]) for target in request["targets"])
    tx.emit(topic(job_id), "job.state", {"state": "queued"})
    return job


def retry(tx: Tx, job: Job, *, max_queued: int | None = None) -> Job:
    """Queue the same request as a new job, under the first free name.

    Raises:
        Conflict: the job has not ended (code `state`).
    """
    if job.state not in FINAL:
        raise Conflict(f"the job is {job.state}; only a job that has ended can be retried", code="state")
    number = 2
    while find(tx, name := f"{job.name[:56]}-{number}") is not None:
        number += 1
    request = {**job.request, "name": name}
    return create(tx, request, warnings=job.warnings, retry_of=job.id, max_queued=max_queued)


def find(tx: Tx, ref: str) -> Job | None:
    """Return the job with this id, or else with this name."""
    by_id = tx.session.get(Job, ref)
    return by_id or tx.session.execute(select(Job).where(Job.name == ref)).scalar_one_or_none()


def get(tx: Tx, ref: str) -> Job:
    """Return the job with this id, or else with this name.

    Raises:
        NotFound: there is no such job.
    """
    job = find(tx, ref)
    if job is None:
        raise NotFound("job", ref)
    return job


def selected(state: State | None = None, device_id: str | None = None) -> Select[Job]:
    """Select jobs for a list."""
    rows = select(Job)
    if state is not None:
        rows = rows.where(Job.state == state)
    if device_id is not None:
        rows = rows.join(JobDevice, JobDevice.job_id == Job.id).where(JobDevice.device_id == device_id)
    return rows


def counts(tx: Tx) -> dict[str, int]:
    """Count the jobs in each state."""
    rows = select(Job.state, func.count()).group_by(Job.state)
    return {state: count for state, count in tx.session.execute(rows)}  # noqa: C416 - mypy: rows are not pairs


def remove(tx: Tx, job: Job) -> None:
    """Delete a job that has ended, with its evaluations and artifacts.

    Raises:
        Conflict: the job has not ended (code `state`).
    """
    gone = tx.session.execute(
        delete(Job).where(Job.id == job.id, Job.state.in_(FINAL)).returning(Job.id)
    ).scalar_one_or_none()
    if gone is None:
        raise Conflict(f"the job is {job.state}; cancel it first", code="state")
    tx.emit(topic(job.id), "job.state", {"state": "deleted"})


def wait_for(tx: Tx, job_id: str, device_id: str | None) -> None:
    """Note that a job waits for a device, or for no device if `device_id` is None. Nothing changes if this was already
    noted.
    """
    job = get(tx, job_id)
    waiting = job.waiting_for["device"] if job.waiting_for else None
    if waiting == device_id:
        return
    value = None if device_id is None else {"device": device_id, "since": tx.now.isoformat()}
    tx.session.execute(update(Job).where(Job.id == job_id).values(waiting_for=value))
    tx.emit(topic(job_id), "job.state", {"state": job.state, "waiting_for": value})
