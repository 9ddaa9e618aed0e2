"""Feed: the newest events in memory, for everybody who listens to this server.

One task looks at the store every `poll_s`, because other processes (the conductor, other servers) write
events too; two hundred listeners then cost one query and one frame of text. A listener that asks for something
older than what is held here reads it from the store.
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
"""After a look that failed."""


@dataclass(frozen=True)
class Notice:
    """An event as listeners see it."""

    number: int
    at: datetime
    topic: str
    type: str
    data: Mapping[str, Any]

    @cached_property
    def frame(self) -> bytes:
        """It as a server-sent event, made once for all listeners."""
        data = {**self.data, "id": self.number, "at": self.at.isoformat(), "topic": self.topic}
        return format_sse_event(event=self.type, id=str(self.number), data_str=json.dumps(data))


def notice(event: events.Event) -> Notice:
    """The event of a row."""
    return Notice(event.number, event.at, event.topic, event.type, event.data)


class Feed:
    """`newest` is the number up to which this server has seen the log; `ended`: it will see no more of it."""

    def __init__(self, store: Store, poll_s: float) -> None:
        self.store = store
        self.poll_s = poll_s
        self.newest = 0
        self.ended = False
        self._held: deque[Notice] = deque(maxlen=HELD)
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for new events while the block runs; afterwards nothing reads from the store any more."""
        self.newest = await to_thread.run_sync(self._newest_stored)
        # Unlike a task's own cancel, a group's lets a look in its thread come to its end.
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            try:
                yield
            finally:
                self.end()
                group.cancel_scope.cancel()

    def end(self) -> None:
        """Let go of every listener: the server is about to end, and they resume elsewhere or later."""
        self.ended = True
        self._wake()

    async def after(self, number: int) -> Sequence[Notice]:
        """Events above `number`, at most BATCH, in order; waits until there is one, or the feed has ended."""
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
            except Exception as error:  # whatever it is, every listener would wait in vain from now on
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
        # All who wait, in one turn of the loop: a condition would hand its lock from each to the next.
        self._changed.set()
        self._changed = asyncio.Event()

    def _newest_stored(self) -> int:
        with self.store.read() as tx:
            return events.newest(tx)

    def _stored_after(self, number: int) -> Sequence[Notice]:
        with self.store.read() as tx:
            return [notice(row) for row in events.after(tx, number, BATCH)]
