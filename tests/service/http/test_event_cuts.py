"""Event streams over cuts from the server's side: every client sees every event once, in order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from api_process import ApiProcess, free_port
from live_server import until
from patience import PATIENCE_S

from netlathe import Client
from service.settings import Settings
from service.store import Store, events

pytestmark = pytest.mark.long

CLIENTS = 20
BETWEEN_CUTS = 30
"""Events that every client must have seen since one cut before there is another."""
LAST = "front.changed"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"port": free_port()})


@dataclass
class Listener:
    """A client and the numbers of the events that it saw. `since` None: from now on."""

    client: Client
    topic: str
    since: int | None
    connected: threading.Event = field(default_factory=threading.Event)
    numbers: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Until the last event."""
        for event in self.client.events([self.topic], self.since):
            if event.number is not None:
                self.connected.set()
            if event.type in ("log.line", LAST):
                assert event.number is not None
                self.numbers.append(event.number)
            if event.type == LAST:
                return


def write(store: Store, topic: str, over: threading.Event) -> None:
    """Events without a rest to speak of, until it is over; then the last one."""
    while not over.wait(0.01):
        with store.begin() as tx:
            tx.emit(topic, "log.line", {"text": "a line"})
    with store.begin() as tx:
        tx.emit(topic, LAST, {})


def test_no_event_is_missed_and_none_comes_twice(
    settings: Settings, store: Store, queued: str, user_token: str
) -> None:
    topic, over = f"job:{queued}", threading.Event()
    server = ApiProcess(settings)
    clients = [Client(server.url, user_token, backoff_s=0.02) for _ in range(CLIENTS)]
    with store.read() as tx:
        now = events.newest(tx)
    listeners = [Listener(client, topic, (None, now)[index % 2]) for index, client in enumerate(clients)]
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        server.start()
        server.await_ready()
        work = [pool.submit(listener.run) for listener in listeners]
        try:
            for listener in listeners:
                assert listener.connected.wait(PATIENCE_S)
            work.append(pool.submit(write, store, topic, over))
            for cut in (server.kill, server.end):
                _all_saw_more(listeners)
                cut()
                server.start()
                server.await_ready()
            _all_saw_more(listeners)
        finally:
            over.set()
            for done in work:
                done.result(PATIENCE_S)
            server.kill()
    for client in clients:
        client.close()
    with store.read() as tx:
        written = [event.number for event in events.of_topic(tx, topic, ("log.line", LAST), None, 1_000_000)]
    for listener in listeners:
        assert listener.numbers == written


def _all_saw_more(listeners: list[Listener]) -> None:
    wanted = [(listener, len(listener.numbers) + BETWEEN_CUTS) for listener in listeners]
    until(lambda: all(len(listener.numbers) >= count for listener, count in wanted), "events at every client")
