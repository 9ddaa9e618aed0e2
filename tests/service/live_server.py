"""A real server on a loopback port, in a thread: for clients that are real processes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from patience import PATIENCE_S

from service.app import create_app
from service.settings import Settings
from service.store import Store


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something; the limit only guards against hanging."""
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, f"waited in vain: {what}"
        time.sleep(0.05)


class OpenStore(Store):
    """The same store, not closed when a server over it ends: the test goes on with it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.engine, store.clock)

    def close(self) -> None:
        pass


class LiveServer(uvicorn.Server):
    """uvicorn, which forgets a connection that is accepted while it ends: its socket would be left to the garbage."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(10):  # what was accepted becomes a connection within a few turns of the loop
            await asyncio.sleep(0)
        await super().shutdown(sockets)


@contextmanager
def serving(settings: Settings, store: Store, port: int = 0) -> Iterator[str]:
    """The URL of a running server over `store`; with TLS where the settings have it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        create_app(settings, OpenStore(store)),
        loop="asyncio",
        log_level="warning",
        timeout_graceful_shutdown=2,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    server = LiveServer(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started, "the server to start")
        scheme = "http" if settings.tls_cert is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
