"""Feed: it outlives a store that fails, and no look at the store outlives it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from anyio import to_thread
from patience import PATIENCE_S
from sqlalchemy.exc import OperationalError

from service.http.event_feed import Feed, Notice
from service.store import Store
from service.store.base import Tx


def test_a_look_under_way_ends_before_the_feed_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    read = store.read

    @contextmanager
    def slow_read() -> Iterator[Tx]:
        began.set()
        may_end.wait(PATIENCE_S)
        with read() as tx:
            yield tx
        ended.set()

    async def scenario() -> None:
        async with Feed(store, 0.01).running():
            monkeypatch.setattr(store, "read", slow_read)
            await to_thread.run_sync(began.wait, 60)
            asyncio.get_running_loop().call_later(0.2, may_end.set)
        assert ended.is_set()

    try:
        asyncio.run(scenario())
    finally:
        may_end.set()


def test_a_feed_that_ends_lets_go_of_who_waits_and_of_who_comes(store: Store) -> None:
    async def scenario() -> list[Sequence[Notice]]:
        feed = Feed(store, 0.01)
        async with feed.running():
            waiting = asyncio.create_task(feed.after(0))
            await asyncio.sleep(0)  # it waits
            feed.end()
            return [await asyncio.wait_for(waiting, 60), await asyncio.wait_for(feed.after(0), 60)]

    assert asyncio.run(scenario()) == [(), ()]


def test_who_lags_gets_what_is_held_in_order_and_a_batch_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.event_feed.BATCH", 3)

    async def scenario() -> list[list[int]]:
        feed = Feed(store, 0.01)
        async with feed.running():
            with store.begin() as tx:
                for _ in range(7):
                    tx.emit("job:one", "log.line", {})
            while feed.newest < 7:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(store, "read", None)  # what is held needs no look
            return [[item.number for item in await feed.after(number)] for number in (0, 3, 6)]

    assert asyncio.run(scenario()) == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_look_that_fails_is_one_line_and_the_next_one_finds_the_events(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.http.event_feed.REST_S", 0.01)
    failed = threading.Event()
    read = store.read

    @contextmanager
    def failing_read() -> Iterator[Tx]:
        if not failed.is_set():
            failed.set()
            raise OperationalError("SELECT 1", None, Exception("the disk is away\nand so on"))
        with read() as tx:
            yield tx

    async def scenario() -> list[str]:
        feed = Feed(store, 0.01)
        async with feed.running():
            monkeypatch.setattr(store, "read", failing_read)
            await to_thread.run_sync(failed.wait, 60)
            with store.begin() as tx:
                tx.emit("job:one", "job.state", {})
            return [item.topic for item in await asyncio.wait_for(feed.after(0), 60)]

    assert asyncio.run(scenario()) == ["job:one"]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "service.http.event_feed"]
    assert said.startswith("new events cannot be read, trying again in 0.01 s: OperationalError")
    assert "the disk is away" in said
    assert "\n" not in said
