"""Moves of jobs from one state to another; all moves go through `transition`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from service.errors import Conflict
from service.store.base import Tx
from service.store.jobs.jobs import Job, topic
from service.store.jobs.states import FINAL, MOVES, STATES, State


def transition(tx: Tx, job_id: str, seen_epoch: int, source: State, target: State, /, **values: Any) -> None:
    """Move a job to another state if its state has not changed since the caller read it: one UPDATE guarded by state
    and epoch.

    Leaving `running` ends the lease. Every move resets the user's `signal`, except a takeover, which keeps it.

    Raises:
        Conflict: the job's state has changed in the meantime (code `state`).
        ValueError: the table has no such move.
    """
    from service.store.devices import work_items

    if target not in MOVES[source]:
        raise ValueError(f"no move from {source} to {target}")
    if target != "running":
        values |= {"lease_owner": None, "lease_until": None, "signal": "continue", "waiting_for": None}
    if target in FINAL:
        values |= {"finished_at": tx.now, "eta_s": None}
    guarded = update(Job).where(Job.id == job_id, Job.state == source, Job.epoch == seen_epoch)
    moved = tx.session.execute(guarded.values(state=target, **values).returning(Job.id)).scalar_one_or_none()
    if moved is None:
        raise Conflict(f"the job is no longer {source}", code="state")
    if target in FINAL:
        work_items.withdraw(tx, job_id)
    said: dict[str, Any] = {"state": target}
    if target == "succeeded":
        said["verdict"] = values.get("verdict")
    if target == "failed":
        said["failure"] = values.get("failure")
    tx.emit(topic(job_id), "job.state", said)


def cancel(tx: Tx, job: Job) -> None:
    """Cancel a job; if it is running, ask its conductor to cancel it. This has no effect on a job that has ended."""
    _hold(tx, job)
    if job.state in FINAL:
        return
    if job.state == "running" and not _abandoned(tx, job):
        _ask(tx, job, "cancel")
        return
    transition(tx, job.id, job.epoch, _state(job), "cancelled", epoch=job.epoch + 1)


def pause(tx: Tx, job: Job) -> None:
    """Pause a job: at once if it is queued, or at its next stopping point if it is running.

    Raises:
        Conflict: the job has ended, is paused or is being cancelled (code `state`).
    """
    _hold(tx, job)
    if job.state == "queued":
        transition(tx, job.id, job.epoch, "queued", "paused")
    elif job.state == "running" and job.signal != "cancel":
        _ask(tx, job, "pause")
    else:
        raise Conflict(f"a job that is {_described(job)} cannot be paused", code="state")


def resume(tx: Tx, job: Job) -> None:
    """Queue a paused job again, or withdraw a pause that has not happened yet.

    Raises:
        Conflict: the job is neither paused nor about to pause (code `state`).
    """
    _hold(tx, job)
    if job.state == "paused":
        transition(tx, job.id, job.epoch, "paused", "queued")
    elif job.state == "running" and job.signal == "pause":
        _ask(tx, job, "continue")
    else:
        raise Conflict(f"a job that is {_described(job)} cannot be resumed", code="state")


def _hold(tx: Tx, job: Job) -> None:
    """Read the current row and lock it until the end of this transaction."""
    tx.session.refresh(job, with_for_update=True)


def _ask(tx: Tx, job: Job, signal: str) -> None:
    if signal == job.signal:  # the row is locked, so this value is current
        return
    guarded = update(Job).where(Job.id == job.id, Job.state == "running", Job.epoch == job.epoch)
    asked = tx.session.execute(guarded.values(signal=signal).returning(Job.id)).scalar_one_or_none()
    if asked is None:
        raise Conflict("the job's state has changed in the meantime", code="state")
    tx.emit(topic(job.id), "job.state", {"state": "running", "signal": signal})


def _abandoned(tx: Tx, job: Job) -> bool:
    return job.lease_until is None or job.lease_until <= tx.now


def _described(job: Job) -> str:
    return "being cancelled" if job.signal == "cancel" else job.state


def _state(job: Job) -> State:
    for state in STATES:
        if state == job.state:
            return state
    raise ValueError(f"a stored job in unknown state {job.state!r}")
