"""Events: resumed without a gap and without a duplicate, filtered by topic, reset when they are gone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from patience import PATIENCE_S
from service_world import HandClock, Uploaded, queue

from service.app import create_app
from service.settings import Settings
from service.store import Store, events, tokens
from service.store.devices.devices import Device
from service.store.jobs import jobs


@dataclass(frozen=True)
class Frame:
    """One frame of a stream. `id` is None for a ping."""

    id: int | None
    type: str | None
    data: dict[str, Any] | None


@pytest.fixture(autouse=True)
def named(store: Store, uploaded: Uploaded) -> None:
    """Jobs j1 and j2 and a device d1 to name in topics, without a past."""
    with store.begin() as tx:
        known = tx.session.get_one(Device, uploaded.device_id)
        row = {column.name: getattr(known, column.name) for column in Device.__table__.columns}
        tx.session.add(Device(**{**row, "id": "d1", "name": "pi5", "config_id": "d" * 64}))
        for name in ("j1", "j2"):
            asked = {"model_id": uploaded.model_id, "dataset_id": uploaded.dataset_id, "request": {}, "warnings": []}
            tx.session.add(jobs.Job(id=name, name=f"name-of-{name}", created_at=tx.now, **asked))


@pytest.fixture
def url(settings: Settings, store: Store, user_token: str) -> Iterator[str]:
    """A real server: the test client does not stream."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(settings.model_copy(update={"ping_s": 0.1}), store),
        log_config=None,  # so that what it logs can be read by a test
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(PATIENCE_S)
    listening.close()
    assert not thread.is_alive()


@contextmanager
def listening(url: str, token: str, query: str = "", last: int | None = None) -> Iterator[Iterator[Frame]]:
    headers = {"Authorization": f"Bearer {token}"} | ({} if last is None else {"Last-Event-ID": str(last)})
    with httpx.stream("GET", f"{url}/api/v1/events{query}", headers=headers, timeout=PATIENCE_S) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _frames(answer.iter_lines())


def _frames(lines: Iterator[str]) -> Iterator[Frame]:
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            found[name] = value
        elif not line:
            data = json.loads(found["data"]) if "data" in found else None
            yield Frame(int(found["id"]) if "id" in found else None, found.get("event"), data)
            found = {}


def take(frames: Iterator[Frame], count: int) -> list[Frame]:
    """The next `count` events; pings and the greeting are no events."""
    events_ = (frame for frame in frames if frame.type is not None)
    return [next(events_) for _ in range(count)]


def write(store: Store, count: int, topic: str = "job:j1", type: str = "log.line") -> None:
    for turn in range(count):
        with store.begin() as tx:
            tx.emit(topic, type, {"turn": turn})


def test_a_stream_begins_now_and_tells_what_happens(url: str, store: Store, user_token: str) -> None:
    write(store, 3)
    with listening(url, user_token, "?topics=job:j1") as frames:
        assert next(frames).id == 3
        write(store, 2)
        found = take(frames, 2)
    assert [frame.id for frame in found] == [4, 5]
    assert found[0].type == "log.line"
    assert found[0].data is not None
    assert {**found[0].data, "at": ""} == {"turn": 0, "id": 4, "at": "", "topic": "job:j1"}


def test_resuming_anywhere_gives_each_event_once(url: str, store: Store, user_token: str) -> None:
    over = threading.Event()
    writer = threading.Thread(target=lambda: (write(store, 60), over.set()))
    writer.start()
    seen: list[int] = []
    while len(seen) < 60:
        with listening(url, user_token, "?topics=job:j1&since=0", last=seen[-1] if seen else None) as frames:
            seen += [frame.id or 0 for frame in take(frames, 7 if len(seen) < 49 else 60 - len(seen))]
    writer.join(PATIENCE_S)
    assert over.is_set()
    assert seen == list(range(1, 61))


def test_what_is_older_than_memory_comes_from_the_store(
    url: str, store: Store, user_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.event_feed.BATCH", 10)
    write(store, 35)  # partly before the first look of a listener
    with listening(url, user_token, "?topics=job:j1&since=5") as frames:
        assert [frame.id for frame in take(frames, 30)] == list(range(6, 36))


def test_topics_keep_to_themselves(url: str, store: Store, user_token: str) -> None:
    with listening(url, user_token, "?topics=jobs,device:d1") as frames:
        next(frames)
        write(store, 1, "job:j1", "log.line")
        write(store, 1, "job:j1", "job.state")
        write(store, 1, "device:d2", "device.state")
        write(store, 1, "device:d1", "device.state")
        assert [(frame.id, frame.type) for frame in take(frames, 2)] == [(2, "job.state"), (4, "device.state")]


def test_a_quiet_stream_pings(url: str, user_token: str) -> None:
    with listening(url, user_token) as frames:
        next(frames)
        assert next(frames) == Frame(None, None, None)


def test_a_revoked_token_loses_its_stream(url: str, store: Store, user_token: str) -> None:
    with listening(url, user_token) as frames:
        assert next(frames)
        with store.begin() as tx:
            tokens.revoke(tx, tokens.find(tx, user_token).id)
        for _ in frames:  # pings, and then its end: not before, and not never
            pass
    answer = httpx.get(f"{url}/api/v1/events", headers={"Authorization": f"Bearer {user_token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("since", [2, 900])
def test_a_number_that_is_gone_or_of_another_log_resets(
    url: str, store: Store, user_token: str, clock: HandClock, since: int
) -> None:
    write(store, 5)
    clock.advance(10)
    write(store, 2)
    with store.begin() as tx:
        events.prune(tx, clock.now - timedelta(seconds=5))
    with listening(url, user_token, "?topics=job:j1") as frames:
        next(frames)  # the server has seen all that was written
    with listening(url, user_token, f"?topics=job:j1&since={since}") as frames:
        reset = take(frames, 1)[0]
        assert (reset.type, reset.id) == ("reset", 7)
        write(store, 1)
        assert take(frames, 1)[0].id == 8


def test_a_page_of_events_is_resumed_by_newest(client: TestClient, store: Store) -> None:
    write(store, 3)
    write(store, 2, "job:j2")
    first = client.get("/api/v1/events.json", params={"topics": "job:j1"}).json()
    assert [event["id"] for event in first["items"]] == [1, 2, 3]
    assert (first["newest"], first["reset"]) == (5, False)
    assert client.get("/api/v1/events.json", params={"since": 5}).json() == {"items": [], "newest": 5, "reset": False}
    assert client.get("/api/v1/events.json", params={"since": 9}).json()["reset"] is True


def test_unknown_topics_and_numbers_are_refused(client: TestClient) -> None:
    topics = ("weather", "job:", "", "jobs,", "job:nobody", "device:dev_0")
    refused = [("topics", topic) for topic in topics] + [("since", number) for number in ("-1", "x")]
    for name, value in refused:
        answer = client.get("/api/v1/events.json", params={name: value})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == name
    answer = client.get("/api/v1/events", headers={"Last-Event-ID": "x"})
    found = {"field": "last-event-id", "message": r"must match ^\d{1,18}$", "value": "x"}
    assert (answer.status_code, answer.json()["errors"]) == (422, [found])


def test_a_job_tells_its_life(client: TestClient, store: Store, uploaded: Uploaded) -> None:
    job_id = queue(store, uploaded)
    client.post(f"/api/v1/jobs/{job_id}/pause")
    client.post(f"/api/v1/jobs/{job_id}/cancel")
    told = client.get("/api/v1/events.json", params={"topics": f"job:{job_id}"}).json()["items"]
    assert [(event["type"], event["data"]["state"]) for event in told] == [
        ("job.state", "queued"),
        ("job.state", "paused"),
        ("job.state", "cancelled"),
    ]


@pytest.mark.parametrize("topic", ["job:name-of-j1", "device:pi5"])
def test_a_topic_may_be_a_name(client: TestClient, store: Store, topic: str) -> None:
    write(store, 1, "job:j1")
    write(store, 1, "device:d1")
    told = client.get("/api/v1/events.json", params={"topics": topic}).json()["items"]
    assert [event["topic"] for event in told] == ["job:j1" if topic.startswith("job") else "device:d1"]


def test_an_unknown_job_is_named(client: TestClient) -> None:
    error = client.get("/api/v1/events", params={"topics": "job:nobody"}).json()["errors"]
    assert error == [{"field": "topics", "message": "there is no job 'nobody'", "value": "job:nobody"}]


def test_a_client_that_leaves_in_mid_stream_is_no_error(
    url: str, store: Store, user_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with store.begin() as tx:
        for _ in range(200):  # more than the sockets between hold: the server is sending when the client leaves
            tx.emit("job:j1", "log.line", {"text": "x" * 50_000})
    address = urlsplit(url)
    request = (
        f"GET /api/v1/events?topics=job:j1&since=0 HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {user_token}\r\n\r\n"
    )
    for _ in range(20):
        with socket.create_connection((address.hostname or "", address.port or 0), PATIENCE_S) as leaving:
            leaving.sendall(request.encode())
            leaving.recv(64)
    with listening(url, user_token, "?topics=job:j1&since=199") as frames:
        assert take(frames, 1)[0].id == 200  # the server is well
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
