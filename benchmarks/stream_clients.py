"""Many listeners of one event stream in one lean process. They record event numbers, and reconnect after a cut."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, cast

AGAIN_S = (0.05, 0.25)
"""Shortest and longest pause, in seconds, before a client reconnects; each pause is drawn at random between them."""
OPENED_AT_ONCE = 20


@dataclass(frozen=True)
class Address:
    """The stream to listen to, and the number of the event after which to start."""

    host: str
    port: int
    token: str
    topic: str
    since: int

    def request(self, last: int) -> bytes:
        return (
            f"GET /api/v1/events?topics={self.topic} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: Bearer {self.token}\r\nLast-Event-ID: {last}\r\n\r\n"
        ).encode()


class Listener(asyncio.Protocol):
    """One client through all of its connections. `numbers` are the numbers of the events that it saw, in order of
    arrival.
    """

    def __init__(self, address: Address, timed: bool) -> None:
        self.address = address
        self.timed = timed
        self.numbers: list[int] = []
        self.lags_ms: list[float] = []
        self.connections = 0
        self.lost = asyncio.Event()
        self._rest = b""

    @property
    def last(self) -> int:
        return self.numbers[-1] if self.numbers else self.address.since

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._rest = b""
        self.connections += 1
        cast(asyncio.Transport, transport).write(self.address.request(self.last))

    def data_received(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            # Chunk sizes come before a frame, never within one; the greeting has a number but no event.
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"event" in fields:
                self.numbers.append(int(fields[b"id"]))
                if self.timed:
                    told = datetime.fromisoformat(json.loads(fields[b"data"])["at"])
                    self.lags_ms.append(1000 * (time.time() - told.timestamp()))

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set()

    async def listen(self) -> None:
        """Listen forever."""
        loop = asyncio.get_running_loop()
        while True:
            self.lost.clear()
            try:
                await loop.create_connection(lambda: self, self.address.host, self.address.port)
                await self.lost.wait()
            except OSError:  # the server is away
                pass
            await asyncio.sleep(random.uniform(*AGAIN_S))


def run(address: Address, count: int, parent: Connection) -> None:
    """Run a process that reports when all listeners are connected. It then receives a number and sends the numbers of
    all events that were seen up to this number.
    """
    parent.send(asyncio.run(_run(address, count, parent)))


async def _run(address: Address, count: int, parent: Connection) -> dict[str, Any]:
    listeners = [Listener(address, timed=index == 0) for index in range(count)]
    tasks = []
    for index, listener in enumerate(listeners):
        tasks.append(asyncio.create_task(listener.listen()))
        if index % OPENED_AT_ONCE == OPENED_AT_ONCE - 1:
            await _until(lambda: all(each.connections for each in listeners[: len(tasks)]))
    parent.send("connected")
    end, patience_s = await asyncio.to_thread(parent.recv)
    late_s = time.monotonic() + patience_s
    await _until(lambda: all(each.last >= end for each in listeners) or time.monotonic() > late_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "numbers": [each.numbers for each in listeners],
        "lags_ms": listeners[0].lags_ms,
        "connections": sum(each.connections for each in listeners),
    }


async def _until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.02)


def faults(numbers: Sequence[int], wanted: Sequence[int]) -> dict[str, int]:
    """Return how many of the wanted numbers are missing, and how many came twice or out of order."""
    return {
        "missing": len(set(wanted) - set(numbers)),
        "repeated": len(numbers) - len(set(numbers)),
        "disordered": sum(after < before for before, after in pairwise(numbers)),
    }
