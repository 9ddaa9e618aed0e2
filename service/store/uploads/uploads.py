"""Uploads: the parts that models and data sets have in common. An upload names one content, which is checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from service.errors import Conflict, InvalidInput, NotFound
from service.store.base import Tx
from service.store.jobs.jobs import Job
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model

State = Literal["checking", "ready", "refused"]
MARGIN = timedelta(seconds=60)
Row = TypeVar("Row", Model, Dataset)


INTERRUPTED = {"field": "file", "message": "the check was interrupted: upload the file again", "value": None}


class Same(Protocol):
    """Tells whether a row is the current upload, with the same bytes and settings."""

    def __call__(self, row: Any, /) -> bool: ...


def get(tx: Tx, kind: type[Row], ref: str) -> Row:
    """Return the row with this id, or else with this name.

    Raises:
        NotFound: there is no such row.
    """
    row = tx.session.get(kind, ref)
    row = row or tx.session.execute(select(kind).where(kind.name == ref)).scalar_one_or_none()
    if row is None:
        raise NotFound(kind.__name__.lower(), ref)
    return row


def interrupted(tx: Tx, row: Model | Dataset, wall: timedelta) -> bool:
    """True if the check has run for longer than `wall`, the time limit for checks, so its server must have died."""
    return row.state == "checking" and row.created_at + wall + MARGIN < tx.now


def outcome(tx: Tx, row: Model | Dataset, wall: timedelta) -> Mapping[str, Any]:
    """Return `state` and `problem` as they are shown: an interrupted check is shown as a refusal."""
    if interrupted(tx, row, wall):
        return {"state": "refused", "problem": INTERRUPTED}
    return {"state": row.state, "problem": row.problem}


def existing(tx: Tx, kind: type[Row], name: str, same: Same, wall: timedelta) -> Row | None:
    """Return the row with this name if it is the same upload; None if the name is free.

    A refused or interrupted upload leaves its name free.

    Raises:
        Conflict: the name belongs to an upload with other content or settings.
    """
    row = tx.session.execute(select(kind).where(kind.name == name)).scalar_one_or_none()
    if row is None or row.state == "refused" or interrupted(tx, row, wall):
        return None
    if not same(row):
        raise Conflict(f"there is a {kind.__name__.lower()} {name!r} with other content or settings", code="name")
    return row


def add(tx: Tx, row: Model | Dataset) -> None:
    """Insert an upload whose name `existing` found free.

    Raises:
        Conflict: another upload took the name at the same moment.
    """
    kind = type(row)
    tx.session.execute(delete(kind).where(kind.name == row.name))
    tx.session.add(row)
    try:
        tx.session.flush()
    except IntegrityError as error:
        raise Conflict(f"the name {row.name!r} was taken a moment ago", code="name") from error


def settle(tx: Tx, kind: type[Row], row_id: str, found: Mapping[str, Any] | InvalidInput) -> None:
    """Store the result of a check that outlasted its request. This has no effect if the row was deleted in the
    meantime.
    """
    row = tx.session.get(kind, row_id)
    if row is None or row.state != "checking":
        return
    if isinstance(found, InvalidInput):
        row.state = "refused"
        row.problem = {"field": found.field, "message": found.message, "value": found.value}
        return
    for name, value in found.items():
        setattr(row, name, value)
    row.state = "ready"


def remove(tx: Tx, row: Model | Dataset) -> None:
    """Delete an upload; its content is deleted at the next sweep.

    Raises:
        Conflict: a job refers to it.
    """
    column: InstrumentedAttribute[str] = Job.model_id if isinstance(row, Model) else Job.dataset_id
    users = (
        tx.session.execute(select(Job.name).where(column == row.id).order_by(Job.created_at).limit(3)).scalars().all()
    )
    if users:
        raise Conflict(f"{row.name!r} is used by {', '.join(users)}; delete the jobs first", code="referenced")
    tx.session.delete(row)
    tx.session.flush()
