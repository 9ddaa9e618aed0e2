"""The server of the tests leaves nothing behind that fails a later test."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from urllib.parse import urlsplit

import pytest
from live_server import LiveServer, serving

from service.settings import Settings
from service.store import Store


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
def test_a_connection_that_comes_as_it_ends_is_closed(
    turns: int, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutdown = LiveServer.shutdown
    late: list[socket.socket] = []

    async def shutdown_under_a_late_client(self: LiveServer, sockets: list[socket.socket] | None = None) -> None:
        late.append(socket.create_connection(("127.0.0.1", port)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await shutdown(self, sockets)

    monkeypatch.setattr(LiveServer, "shutdown", shutdown_under_a_late_client)
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: left.append(found.exc_value))
    with serving(settings, store) as url:
        port = urlsplit(url).port
    gc.collect()
    late[0].close()
    assert left == []
