"""Downloads: whole, in ranges, by HEAD, and problems for ranges that no file has."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import Response

from service.files.blobs import Blobs
from service.http.downloads import file_answer

CONTENT = b"0123456789"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """Of a server that has ten bytes, whatever it is asked for."""
    blobs = Blobs(tmp_path)
    blob = blobs.put_bytes(CONTENT)

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        asked = Request(scope).headers.get("if-none-match")
        answer: Response = file_answer(blobs, blob.sha256, "ten.bin", asked)
        await answer(scope, receive, send)  # type: ignore[arg-type]

    return TestClient(app)  # type: ignore[arg-type]  # plain ASGI


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ("bytes=2-4", b"234"),
        ("bytes=7-", b"789"),
        ("bytes=-3", b"789"),
        ("Bytes = 0-0", b"0"),
        ("bytes=8-999999999999999999", b"89"),
        ("bytes=-99", CONTENT),
        ("bytes=3-4,50-60", b"34"),
    ],
)
def test_a_range_of_the_file_is_sent(client: TestClient, asked: str, content: bytes) -> None:
    answer = client.get("/", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, content)
    first = CONTENT.index(content)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(content) - 1}/10"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=5-2",
        "bytes=abc",
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=1-2,x",
        "bytes=" + "9" * 5000 + "-",
        "",
    ],
)
def test_a_range_that_says_nothing_is_passed_over(client: TestClient, asked: str) -> None:
    answer = client.get("/", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20,30-40", "bytes=-0"])
def test_a_range_beyond_the_file_is_a_problem(client: TestClient, asked: str) -> None:
    answer = client.get("/", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == f"no range of {asked!r} lies within the 10 bytes"


def test_several_ranges_come_in_parts(client: TestClient) -> None:
    answer = client.get("/", headers={"Range": "bytes=0-1,8-9"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert [part in answer.content for part in (b"\r\n01\r\n", b"\r\n89\r\n")] == [True, True]


def test_a_range_of_another_content_is_the_whole_of_this_one(client: TestClient) -> None:
    etag = client.get("/").headers["etag"]
    for condition, status in ((etag, 206), ('"other"', 200)):
        assert client.get("/", headers={"Range": "bytes=2-4", "If-Range": condition}).status_code == status
    assert client.get("/", headers={"Range": "bytes=99-", "If-Range": '"other"'}).status_code == 200


def test_head_says_what_get_would_send(client: TestClient) -> None:
    whole = client.get("/")
    for headers in ({}, {"Range": "bytes=2-4"}, {"Range": "bytes=99-"}):
        answer = client.head("/", headers=headers)
        assert (answer.status_code, answer.content, answer.headers) == (200, b"", whole.headers)
