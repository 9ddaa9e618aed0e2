"""Feed: the newest events in memory, shared by all listeners of this server.

One task polls the store every `poll_s`, because other processes (the conductor, other servers) write events, too. Two
hundred listeners then cost one query and one frame of text. Events that are no longer in memory are read from the
store.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import Any

import anyio
from anyio import to_thread
from fastapi.sse import format_sse_event

from service.store import events
from service.store.engine import Store

log = logging.getLogger(__name__)

HELD = 10_000
BATCH = 500
REST_S = 5.0
"""Pause after a failed poll."""


@dataclass(frozen=True)
class Notice:
    """An event as it is sent to listeners."""

    number: int
    at: datetime
    topic: str
    type: str
    data: Mapping[str, Any]

    @cached_property
    def frame(self) -> bytes:
        """The event as a server-sent event; the text is made once for all listeners."""
        data = {**self.data, "id": self.number, "at": self.at.isoformat(), "topic": self.topic}
        return format_sse_event(event=self.type, id=str(self.number), data_str=json.dumps(data))


def notice(event: events.Event) -> Notice:
    """Convert a stored event."""
    return Notice(event.number, event.at, event.topic, event.type, event.data)


class Feed:
    """The event feed of a server. `newest` is the number of the last event read; `ended` means that the feed reads no
    more events.
    """

    def __init__(self, store: Store, poll_s: float) -> None:
        self.store = store
        self.poll_s = poll_s
        self.newest = 0
        self.ended = False
        self._held: deque[Notice] = deque(maxlen=HELD)
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll for new events during the `with` block; afterwards the feed no longer reads from the store."""
        self.newest = await to_thread.run_sync(self._newest_stored)
        # Cancelling the group, unlike cancelling a task, lets a poll in its thread finish.
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            try:
                yield
            finally:
                self.end()
                group.cancel_scope.cancel()

    def end(self) -> None:
        """Release all listeners because the server is about to shut down. They resume later or on another server."""
        self.ended = True
        self._wake()

    async def after(self, number: int) -> Sequence[Notice]:
        """Return at most BATCH events above `number`, in order; wait until there is an event or the feed has ended."""
        while self.newest <= number and not self.ended:
            await self._changed.wait()
        if self.ended:
            return ()
        held = self._held
        if held and held[0].number <= number + 1:
            fresh = list(takewhile(lambda item: item.number > number, reversed(held)))
            return fresh[::-1][:BATCH]
        return await to_thread.run_sync(self._stored_after, number)

    async def _follow(self) -> None:
        while True:
            try:
                found = await to_thread.run_sync(self._stored_after, self.newest)
            except Exception as error:  # any uncaught error would leave all listeners waiting
                said = f"{type(error).__name__}: {error}".splitlines()[0]
                log.error("new events cannot be read, trying again in %g s: %s", REST_S, said)
                await anyio.sleep(REST_S)
                continue
            if found:
                self._held.extend(found)
                self.newest = found[-1].number
                self._wake()
            if len(found) < BATCH:
                await anyio.sleep(self.poll_s)

    def _wake(self) -> None:
        # Wakes all waiting tasks in one turn of the loop; a condition would pass its lock from one task to the next.
        self._changed.set()
        self._changed = asyncio.Event()

    def _newest_stored(self) -> int:
        with self.store.read() as tx:
            return events.newest(tx)

    def _stored_after(self, number: int) -> Sequence[Notice]:
        with self.store.read() as tx:
            return [notice(row) for row in events.after(tx, number, BATCH)]
