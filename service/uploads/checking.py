"""Checks of uploads, a few at a time. A quick check's result is in the answer to the upload; a slow check's result is
added to the row later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from service.errors import Conflict, InvalidInput
from service.files.data_folder import NoSpace
from service.http.idempotency import Answer, Once
from service.processes.daemon_pool import DaemonPool
from service.settings import Settings
from service.store.base import Tx
from service.store.engine import Store
from service.store.uploads import uploads
from service.store.uploads.uploads import Row
from service.uploads.sandbox import Limits

log = logging.getLogger(__name__)

# A check may need gigabytes of memory and all cores, so only two run at a time: while one computes, the other can read
# its file.
_THREADS = DaemonPool(2, "check")

Found = Mapping[str, Any]
T = TypeVar("T")


class Refusal(BaseModel):
    """Reason for the refusal of an upload whose check outlasted its request."""

    field: str
    message: str
    value: Any


def in_turn(check: Callable[[], T]) -> T:
    """Wait for this check's turn among all checks of this process, then run it and return its result."""
    return _THREADS.submit(check).result()


def limits(settings: Settings) -> Limits:
    """Return the limits of one check."""
    return Limits(
        memory_bytes=settings.check_memory_bytes, cpu_s=int(settings.check_wall_s), wall_s=settings.check_wall_s
    )


def wall(settings: Settings) -> timedelta:
    """Return the time limit of a check. A check that started longer ago than this must have been interrupted."""
    return timedelta(seconds=settings.check_wall_s)


@dataclass(frozen=True)
class Arrival(Generic[Row]):
    """A received upload that is about to become a row.

    Args:
        kind: table of the new row.
        name: name of the new row.
        same: function that returns True if a row with this name is the same upload.
        check: function that checks the file and returns columns of the row.
        drop: function that deletes the file again, unless a row refers to it.
        row: function that makes the row, without the columns that the check returns.
        public: function that converts a row to its public form.
    """

    kind: type[Row]
    name: str
    same: Callable[[Row], bool]
    check: Callable[[], Found]
    drop: Callable[[], None]
    row: Callable[[Tx], Row]
    public: Callable[[Tx, Row], BaseModel]


def answer(arrival: Arrival[Row], of: Mapping[str, Any], once: Once, store: Store, settings: Settings) -> Response:
    """Check an upload and answer 201 if it is new, 200 if it is known, or 202 if it is still being checked.

    Args:
        of: value by which requests are compared; two uploads with equal values are the same request.

    Raises:
        Conflict: the name belongs to a different upload.
        InvalidInput: the check found a fault; nothing is stored.
        NoSpace: the check ran out of disk space; nothing is stored.
    """
    if (kept := once.replayed(of)) is not None:
        return kept
    with store.read() as tx:
        known = uploads.existing(tx, arrival.kind, arrival.name, arrival.same, wall(settings)) is not None
    if known:
        return once(lambda tx: _again(tx, arrival, settings), of=of)
    check = _THREADS.submit(arrival.check)
    wait([check], settings.check_answer_s)
    if not check.done():
        made: list[str] = []
        response = once(lambda tx: _make(tx, arrival, settings, {}, "checking", made), of=of)
        for row_id in made:
            _finish_later(store, arrival.kind, row_id, check)
        return response
    try:
        found = check.result()
    except NoSpace:  # unreferenced files are usually kept for a day, but not on a full disk
        arrival.drop()
        raise
    return once(lambda tx: _make(tx, arrival, settings, found, "ready", []), of=of)


def _again(tx: Tx, arrival: Arrival[Row], settings: Settings) -> Answer:
    row = uploads.existing(tx, arrival.kind, arrival.name, arrival.same, wall(settings))
    if row is None:
        raise Conflict(f"{arrival.name!r} was deleted a moment ago; upload it again", code="name")
    return Answer(arrival.public(tx, row), 200)


def _make(
    tx: Tx, arrival: Arrival[Row], settings: Settings, found: Found, state: uploads.State, made: list[str]
) -> Answer:
    row = uploads.existing(tx, arrival.kind, arrival.name, arrival.same, wall(settings))
    if row is not None:  # the same upload was sent twice at the same time
        return Answer(arrival.public(tx, row), 200)
    row = arrival.row(tx)
    row.state = state
    for column, value in found.items():
        setattr(row, column, value)
    uploads.add(tx, row)
    made.append(row.id)
    return Answer(arrival.public(tx, row), 201 if state == "ready" else 202)


def _finish_later(store: Store, kind: type[Row], row_id: str, check: Future[Found]) -> None:
    def note(ended: Future[Found]) -> None:
        try:
            with store.begin() as tx:
                uploads.settle(tx, kind, row_id, _outcome(ended))
        except Exception:  # no caller waits for this thread; after a while, the check counts as interrupted
            log.exception("the result of the check of %s could not be stored", row_id)

    check.add_done_callback(note)


def _outcome(ended: Future[Found]) -> Found | InvalidInput:
    error = ended.exception()
    if error is None:
        return ended.result()
    if isinstance(error, InvalidInput):
        return error
    if isinstance(error, NoSpace):
        return InvalidInput("file", None, f"{error.detail}: upload the file again once there is room")
    log.error("a check failed because of a fault in the server", exc_info=error)
    return InvalidInput("file", None, "the check failed inside the server: upload the file again")
