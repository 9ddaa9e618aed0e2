"""Leases of jobs. A lease is claimed for a time and renewed while the job runs; its epoch shuts out earlier holders."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, update

from service.errors import Conflict
from service.store.base import Tx
from service.store.jobs.job_states import transition
from service.store.jobs.jobs import Job, topic
from service.store.jobs.states import State
from workers.errors import LeaseLost
from workers.ports import Signal


@dataclass(frozen=True)
class Held:
    """A claim: this conductor may run the job as long as the job has this epoch.

    `takeover` means that the previous conductor went silent, perhaps because the job's work crashed it.
    """

    job_id: str
    owner: str
    epoch: int
    takeover: bool = field(default=False, compare=False)


def claim(tx: Tx, owner: str, lease_s: float, max_crashes: int) -> Held | None:
    """Claim the oldest job that is queued, or running with an expired lease.

    If two conductors race for a job, one gets this job and the other gets the next job. If the user asked the silent
    run to cancel or pause, the takeover cancels or pauses the job. A job that has been taken over too often fails.
    """
    due = or_(Job.state == "queued", (Job.state == "running") & (Job.lease_until <= tx.now))
    for job in tx.session.execute(select(Job).where(due).order_by(Job.created_at, Job.id)).scalars().all():
        try:
            held = _take(tx, job, owner, lease_s, max_crashes)
        except Conflict:
            continue
        if held is not None:
            return held
    return None


def _take(tx: Tx, job: Job, owner: str, lease_s: float, max_crashes: int) -> Held | None:
    epoch = job.epoch + 1
    source: State = "queued"
    crashes = job.crashes
    if job.state == "running":
        source, crashes = "running", job.crashes + 1
        if job.signal in ("cancel", "pause"):
            wanted: State = "cancelled" if job.signal == "cancel" else "paused"
            transition(tx, job.id, job.epoch, source, wanted, epoch=epoch)
            return None
        if crashes > max_crashes:
            transition(tx, job.id, job.epoch, source, "failed", epoch=epoch, failure=_crashed(job, crashes))
            return None
    values: dict[str, Any] = {
        "epoch": epoch,
        "lease_owner": owner,
        "lease_until": tx.now + timedelta(seconds=lease_s),
        "crashes": crashes,
        "started_at": job.started_at or tx.now,
    }
    transition(tx, job.id, job.epoch, source, "running", **values)
    return Held(job.id, owner, epoch, takeover=source == "running")


def _crashed(job: Job, crashes: int, reason: str | None = None) -> dict[str, Any]:
    detail = f"its conductor or its machine failed {crashes} times without a new evaluation in between"
    if reason is not None:
        detail += f"; the last time: {reason}"
    return {"code": "crashed", "step": job.phase or "claim", "field": None, "detail": detail}


def crash(tx: Tx, held: Held, max_crashes: int, reason: str) -> int:
    """Queue a job again because the machine failed; if the machine has failed too often, the job fails.

    Args:
        reason: how the machine failed, for the user.

    Returns:
        Number of failures since the job's last evaluation.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    fence(tx, held, crashes=Job.crashes + 1)
    job = tx.session.execute(
        select(Job).where(Job.id == held.job_id).execution_options(populate_existing=True)
    ).scalar_one()
    if job.crashes > max_crashes:
        end(tx, held, "failed", failure=_crashed(job, job.crashes, reason))
    else:
        end(tx, held, "queued")
    return job.crashes


def fence(tx: Tx, held: Held, **values: Any) -> None:
    """Begin a write for a held job: lock its row and set `values`, unless the claim has ended.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    guarded = update(Job).where(Job.id == held.job_id, Job.state == "running", Job.epoch == held.epoch)
    changed = guarded.values(**{"epoch": held.epoch, **values}).returning(Job.id)
    if tx.session.execute(changed).scalar_one_or_none() is None:
        raise LeaseLost(f"job {held.job_id}: epoch {held.epoch} is over")


def renew(tx: Tx, held: Held, lease_s: float) -> None:
    """Extend the lease to `lease_s` from now, even if it has expired, provided that no conductor has taken over the
    job.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    fence(tx, held, lease_until=tx.now + timedelta(seconds=lease_s))


def signal(tx: Tx, held: Held) -> Signal:
    """Return what the user wants the run to do: continue, pause or cancel.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    rows = select(Job.signal).where(Job.id == held.job_id, Job.state == "running", Job.epoch == held.epoch)
    match tx.session.execute(rows).scalar_one_or_none():
        case "continue" | "pause" | "cancel" as wanted:
            return wanted
        case None:
            raise LeaseLost(f"job {held.job_id}: epoch {held.epoch} is over")
        case other:
            raise ValueError(f"a stored job with unknown signal {other!r}")


def end(tx: Tx, held: Held, target: State, **values: Any) -> None:
    """End the claim and move the job to another state: ended, paused or queued again.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    try:
        transition(tx, held.job_id, held.epoch, "running", target, **values)
    except Conflict as error:
        raise LeaseLost(f"job {held.job_id}: epoch {held.epoch} is over") from error


def progress(tx: Tx, held: Held, *, tell: bool, **values: Any) -> None:
    """Store a job's progress; if `tell` is true, also emit an event.

    Raises:
        LeaseLost: the job has another epoch or is not running.
    """
    fence(tx, held, **values)
    if not tell:
        return
    said: dict[str, Any] = {name: values[name] for name in ("phase", "done", "total", "eta_s") if name in values}
    tx.emit(topic(held.job_id), "job.progress", said)
