"""Events: the log as a stream (SSE) and as pages of JSON."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from service.depends import FeedDep, SettingsDep, StoreDep, UserDep, is_user
from service.errors import InvalidInput
from service.http.event_feed import BATCH, Feed, Notice, notice
from service.http.problem_details import documented
from service.store import events
from service.store.base import Tx
from service.store.devices import devices
from service.store.engine import Store
from service.store.jobs import jobs

router = APIRouter(prefix="/api/v1", tags=["events"])

OVERVIEWS = {
    "jobs": ("job:", ("job.state", "job.progress")),
    "devices": ("device:", ("device.state",)),
}
"""Topics that stand for all resources of a kind. Each has the prefix of those resources' topics, and the event types.
"""
RESET = "reset"


class EventPublic(BaseModel):
    """One event. `id` is its number; `type` determines its data."""

    id: int
    at: datetime
    topic: str
    type: str
    data: dict[str, Any]


class EventList(BaseModel):
    """Events in order. `newest` is the number to send next as `since`; `reset` means that earlier events were lost."""

    items: list[EventPublic]
    newest: int
    reset: bool


class Topics:
    """The events that a listener wants."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact = frozenset(names)
        self.overviews = [OVERVIEWS[name] for name in names if name in OVERVIEWS]

    def __contains__(self, item: Notice) -> bool:
        if item.topic in self.exact:
            return True
        return any(item.topic.startswith(prefix) and item.type in types for prefix, types in self.overviews)


def _topics(store: StoreDep, topics: Annotated[str, Query(max_length=2000)] = "jobs,devices") -> Topics:
    with store.read() as tx:
        return Topics([_topic(tx, name) for name in topics.split(",")])


def _topic(tx: Tx, name: str) -> str:
    """Convert a requested topic to the form used in events, in which the name of a job or device is replaced by the id.

    Raises:
        InvalidInput: there is no such topic.
    """
    kind, _, ref = name.partition(":")
    if name in OVERVIEWS:
        return name
    if kind not in ("job", "device") or not ref:
        raise InvalidInput("topics", name, "must be jobs, devices, job:<id or name> or device:<id or name>")
    found = jobs.find(tx, ref) if kind == "job" else devices.find(tx, ref)
    if found is None:
        raise InvalidInput("topics", name, f"there is no {kind} {ref!r}")
    return f"{kind}:{found.id}"


TopicsDep = Annotated[Topics, Depends(_topics)]
Since = Annotated[int | None, Query(ge=0, le=2**62)]


def _number(
    since: Since = None, last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,18}$")] = None
) -> int | None:
    # A browser that reconnects repeats its first URL, so Last-Event-ID is newer than `since`.
    return int(last_event_id) if last_event_id is not None else since


class EventStream(StreamingResponse):
    """A stream of server-sent events.

    The framework's own class passes each event through a pipe between two tasks. If a client leaves while an event is
    in the pipe, an error appears in the log. This class reads from the generator directly.
    """

    media_type = "text/event-stream"


@router.get("/events", response_class=EventStream, responses=documented(401, 403, 422))
async def stream_events(
    feed: FeedDep,
    store: StoreDep,
    settings: SettingsDep,
    request: Request,
    _user: UserDep,
    wanted: TopicsDep,
    since: Annotated[int | None, Depends(_number)],
) -> EventStream:
    """Stream events as they happen, starting after `since` or `Last-Event-ID`, or now if neither is given."""
    # Read "now" from the store: the in-memory feed may lag by one poll.
    number = await to_thread.run_sync(_newest, store) if since is None else since
    if since is not None and await to_thread.run_sync(_is_lost, store, since):
        number = await to_thread.run_sync(_newest, store)
        lost = json.dumps({"id": number, "topic": RESET})
        first = format_sse_event(event=RESET, id=str(number), data_str=lost)
    else:
        # This is sent at once, so that a client knows that it is connected and from which number the events follow.
        first = format_sse_event(comment=f"from {number}", id=str(number))
    following = _follow(feed, number, wanted, settings.ping_s, lambda: is_user(request, store))
    # Tells proxies not to buffer the answer, which would delay the events.
    return EventStream(_after(first, following), headers={"X-Accel-Buffering": "no"})


async def _after(first: bytes, following: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for frames in following:
        yield frames


async def _follow(
    feed: Feed, number: int, wanted: Topics, ping_s: float, still_allowed: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield frames of the events above `number`, and a ping after each `ping_s` without an event.

    The frames end with the feed, or within `ping_s` after the user loses access.
    """
    ping_at_s = time.monotonic() + ping_s
    # The time is random, because listeners that connected together after a restart would otherwise all query the store
    # at once.
    check_at_s = ping_at_s - random.uniform(0, ping_s)
    while not feed.ended:
        found: Sequence[Notice] = ()
        with anyio.move_on_after(min(ping_at_s, check_at_s) - time.monotonic()):
            found = await feed.after(number)
        if time.monotonic() >= check_at_s:
            if not await to_thread.run_sync(still_allowed):
                return  # the token was revoked or has expired; a client that reconnects gets the error
            check_at_s = time.monotonic() + ping_s
        number = found[-1].number if found else number
        frames = b"".join(item.frame for item in found if item in wanted)
        if frames or time.monotonic() >= ping_at_s:
            yield frames or KEEPALIVE_COMMENT
            ping_at_s = time.monotonic() + ping_s


@router.get("/events.json", responses=documented(401, 403, 422))
def list_events(
    store: StoreDep, _user: UserDep, wanted: TopicsDep, since: Annotated[int, Query(ge=0, le=2**62)] = 0
) -> EventList:
    """List the events after number `since` that fit into one batch. For more events, ask again with `newest` as
    `since`.
    """
    with store.read() as tx:
        lost = since + 1 < events.oldest_kept(tx) or since > events.newest(tx)
        since = events.oldest_kept(tx) - 1 if lost else since
        found = [notice(row) for row in events.after(tx, since, BATCH)]
    items = [
        EventPublic(id=item.number, at=item.at, topic=item.topic, type=item.type, data=dict(item.data))
        for item in found
        if item in wanted
    ]
    return EventList(items=items, newest=found[-1].number if found else since, reset=lost)


def _newest(store: Store) -> int:
    with store.read() as tx:
        return events.newest(tx)


def _is_lost(store: Store, since: int) -> bool:
    """True if events after `since` have been deleted, or `since` belongs to another database's log."""
    with store.read() as tx:
        return since + 1 < events.oldest_kept(tx) or since > events.newest(tx)
