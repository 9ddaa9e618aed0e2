"""What moves a job from one state to another: transition is the one statement that does."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from service.errors import Conflict
from service.store.base import Tx
from service.store.jobs.jobs import Job, topic
from service.store.jobs.states import FINAL, MOVES, STATES, State


def transition(tx: Tx, job_id: str, seen_epoch: int, source: State, target: State, /, **values: Any) -> None:
    """Move a job, if it still is where the caller saw it; one UPDATE guarded by state and epoch.

    Leaving `running` ends the lease; what a user wanted of the run (`signal`) is settled by any move but
    a takeover, which inherits it.

    Raises:
        Conflict: the job moved in the meantime (code `state`).
        ValueError: the table knows no such move.
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
    """End a job, or ask the conductor that runs it to; again, or after the end, nothing happens."""
    _hold(tx, job)
    if job.state in FINAL:
        return
    if job.state == "running" and not _abandoned(tx, job):
        _ask(tx, job, "cancel")
        return
    transition(tx, job.id, job.epoch, _state(job), "cancelled", epoch=job.epoch + 1)


def pause(tx: Tx, job: Job) -> None:
    """Stop a job for a while: at once if it waits, at the next edge of its work if it runs.

    Raises:
        Conflict: it has ended, is paused, or is being cancelled (code `state`).
    """
    _hold(tx, job)
    if job.state == "queued":
        transition(tx, job.id, job.epoch, "queued", "paused")
    elif job.state == "running" and job.signal != "cancel":
        _ask(tx, job, "pause")
    else:
        raise Conflict(f"a job that is {_described(job)} cannot be paused", code="state")


def resume(tx: Tx, job: Job) -> None:
    """Let a paused job go on, or take back a pause that has not come about yet.

    Raises:
        Conflict: it is neither (code `state`).
    """
    _hold(tx, job)
    if job.state == "paused":
        transition(tx, job.id, job.epoch, "paused", "queued")
    elif job.state == "running" and job.signal == "pause":
        _ask(tx, job, "continue")
    else:
        raise Conflict(f"a job that is {_described(job)} cannot be resumed", code="state")


def _hold(tx: Tx, job: Job) -> None:
    """Read the row as it is now, and keep everybody else from it until the end of this transaction."""
    tx.session.refresh(job, with_for_update=True)


def _ask(tx: Tx, job: Job, signal: str) -> None:
    if signal == job.signal:  # it is held: nobody has changed it since it was read
        return
    guarded = update(Job).where(Job.id == job.id, Job.state == "running", Job.epoch == job.epoch)
    asked = tx.session.execute(guarded.values(signal=signal).returning(Job.id)).scalar_one_or_none()
    if asked is None:
        raise Conflict("the job moved in the meantime", code="state")
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
