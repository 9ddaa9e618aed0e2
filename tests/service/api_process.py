"""The API server alone, as `serve` runs it, in a process that a test may kill and start again on the same port."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, context, get_context

from patience import PATIENCE_S

from service.settings import Settings

PORTS = range(20_000, 32_768)
"""Below those that the system gives to clients: a client that tries again and again while the server is away would in
the end be given the very port it calls, be connected with itself, and keep the server from it."""
IMPORTED = ["service.processes.serve", "compress.methods.filter_prune", "search.strategies.greedy"]
"""Once for all starts, in the process that the servers are forked from: the last two bring torch and scipy."""


def free_port() -> int:
    """A port that stays free for a server that comes and goes."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _forks() -> context.ForkServerContext:
    found = get_context("forkserver")
    found.set_forkserver_preload(IMPORTED)
    return found


def _serve(settings: Settings, ready: connection.Connection) -> None:
    from service.processes.serve import serve

    serve(settings, conductor=False, agent=False, ready=ready.send)


@dataclass
class ApiProcess:
    """`settings` must name a port, so that it stays the same."""

    settings: Settings
    process: context.ForkServerProcess = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def start(self) -> None:
        """Start it; it does not answer yet."""
        self._ready, theirs = connection.Pipe(duplex=False)
        self.process = _forks().Process(target=_serve, args=(self.settings, theirs))
        self.process.start()
        theirs.close()

    def await_ready(self) -> None:
        """Wait until it answers."""
        assert self._ready.poll(PATIENCE_S)
        assert self._ready.recv() == self.url

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._gone()

    def end(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        self._gone()

    def _gone(self) -> None:
        self.process.join(PATIENCE_S)
        self.process.close()  # raises where it still runs
        self._ready.close()

    @contextmanager
    def running(self) -> Iterator[str]:
        """The URL of a server that answers; none is left after the block."""
        self.start()
        try:
            self.await_ready()
            yield self.url
        finally:
            self.kill()
