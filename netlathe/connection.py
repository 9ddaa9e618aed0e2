"""Connection: requests that are retried, streams that are resumed and downloads that are checked."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self, cast

import httpx

from netlathe.answers import check, check_trust, retry_after_s
from netlathe.credentials import token_for
from netlathe.errors import Damaged, Problem, ServerFailed, Unauthorized, Unreachable, Unreadable, invalid
from netlathe.event_stream import parse_events
from netlathe.proxy import http_client, through
from netlathe.results import Event, Json

__version__ = "0.1.0"

DEFAULT_URL = "http://127.0.0.1:8000"
_RETRIED_STATUS = frozenset({429, 502, 503, 504})
_SILENCE_S = 45.0  # time for three pings of the event stream, which arrive every 15 s
_PATIENCE_S = 60.0  # how long an event stream waits for a server that restarts


def _checked(url: str) -> str:
    """Return the address without a slash at its end. Raises Invalid."""
    if not re.match(r"https?://[^/]", url):
        raise invalid("url", url, "must begin with http:// or https://, such as http://127.0.0.1:8000")
    if url.rstrip("/").endswith("/api/v1"):
        raise invalid("url", url, "is the server's address alone; leave out /api/v1")
    return url.rstrip("/")


class Connection:
    """Speaks the REST contract, version 1. A proxy is used only if `proxy_to` returns one.

    Args:
        url: address of the server; if None, NETLATHE_URL, else http://127.0.0.1:8000.
        token: if None, NETLATHE_TOKEN, else the content of DATA_DIR/user-token.
        timeout_s: time limit of one request, not counting its upload or download.
        retries: how many times a request is sent again if the answer is 429, 502, 503 or 504, or if there is none.
        backoff_s: wait before the first retry, doubled each time, unless the server sends Retry-After.
        transport, sleep, clock: replacements that tests pass.

    Raises:
        Invalid: the url has no scheme, or ends in /api/v1.
        BadProxy: NETLATHE_PROXY names a proxy that cannot be used.

    Raises (every verb):
        Refused, Unreachable, Untrusted, Unreadable
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        backoff_s: float = 0.25,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = _checked(url or os.environ.get("NETLATHE_URL") or DEFAULT_URL)
        token = token or token_for(self.url)
        # otherwise the transport's error would quote the header with the token
        if token and not re.fullmatch(r"[!-~]+", token):
            says = "the token contains a space, a line break or a non-ASCII character, which no server's token does"
            raise Unauthorized(Problem(401, detail=says, code="token"))
        headers = {"User-Agent": f"netlathe/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = http_client(self.url, transport, base_url=self.url, headers=headers, timeout=timeout_s)
        self._retries, self._backoff_s, self._timeout_s = retries, backoff_s, timeout_s
        self.sleep, self._clock = sleep, clock

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def events(self, topics: Sequence[str], since: int | None = None) -> Iterator[Event]:
        """Yield events as they arrive, endlessly and without gaps or duplicates: the stream resumes after the last
        event seen.

        Each connection or reconnection begins with an `open` event, and a `ping` comes after every 15 s without an
        event. `reset` means that events were lost: read the resource again. Raises Unreachable if the server stays away
        for a minute.
        """
        alive_at, wait_s = self._clock(), self._backoff_s
        while True:
            try:
                for event in self._stream(topics, since):
                    alive_at, wait_s = self._clock(), self._backoff_s
                    since = since if event.number is None else event.number
                    yield event
            except (httpx.TransportError, ServerFailed) as error:
                check_trust(error, self.url)
                if self._clock() - alive_at > _PATIENCE_S:
                    raise Unreachable(f"lost the event stream of {self.url}: {error}") from error
            self.sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    def _stream(self, topics: Sequence[str], since: int | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"} | ({} if since is None else {"Last-Event-ID": str(since)})
        timeout = httpx.Timeout(self._timeout_s, read=_SILENCE_S)
        query = {"topics": ",".join(topics)}
        with self._http.stream("GET", "/api/v1/events", params=query, headers=headers, timeout=timeout) as response:
            check(response)
            yield Event(None, "open")
            yield from parse_events(response.iter_lines())

    def get(self, path: str, query: Json | None = None) -> Json:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self.request("POST", path, body={} if body is None else body)

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        form: Json | None = None,
        file: Path | None = None,
    ) -> Json:
        """Make one call of the contract, with retries; return the answer's JSON object, or {} if there is none."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        params = {name: value for name, value in (query or {}).items() if value is not None}

        def send() -> httpx.Response:
            if file is None:
                return self._http.request(method, path, params=params, json=body, headers=headers)
            with file.open("rb") as stream:
                return self._upload(path, stream, file.name, form or {}, headers)

        response = self._send(send)
        if not response.content:
            return {}
        try:
            return cast(Json, response.json())
        except ValueError as error:
            raise Unreadable(f"{method} {path} answered {response.headers.get('content-type')}, not JSON") from error

    def _upload(self, path: str, stream: BinaryIO, name: str, form: Json, headers: Mapping[str, str]) -> httpx.Response:
        # The server may check for up to 60 s before it answers 202.
        timeout = httpx.Timeout(self._timeout_s, read=120.0, write=120.0)
        return self._http.post(path, data=dict(form), files={"file": (name, stream)}, headers=headers, timeout=timeout)

    def _send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """Send the request until an answer comes that needs no retry."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait_s = self._backoff_s * 2**attempt
            try:
                response = send()
            except httpx.TransportError as error:
                check_trust(error, self.url)
                if last:
                    why = f"{error or type(error).__name__}"
                    raise Unreachable(f"no answer from {self.url}{through(self.url)}: {why}") from error
            else:
                if last or response.status_code not in _RETRIED_STATUS:
                    check(response)
                    return response
                wait_s = retry_after_s(response) or wait_s
            self.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def download(self, path: str, to: Path, sha256: str) -> Path:
        """Download a file to `to`. The file appears only if its sha256 equals the announced sha256.

        Raises:
            Damaged: the sha256 differs, even after a second try.
        """
        seen = ""
        for _ in range(2):
            part = to.with_name(f".{to.name}.{uuid.uuid4().hex}.part")
            try:
                seen = self._fetch(path, part)
                if seen == sha256:
                    return part.replace(to)
            finally:
                part.unlink(missing_ok=True)
        raise Damaged(f"{path} has sha256 {seen}, but the server announced {sha256}")

    def _fetch(self, path: str, to: Path) -> str:
        """Write the answer's body to a file, starting over at each retry; return its sha256."""
        digest = hashlib.sha256()

        def send() -> httpx.Response:
            nonlocal digest
            digest = hashlib.sha256()
            with self._http.stream("GET", path) as response, to.open("wb") as stream:
                if response.is_error:
                    response.read()
                    return response
                for chunk in response.iter_bytes():
                    stream.write(chunk)
                    digest.update(chunk)
                return response

        self._send(send)
        return digest.hexdigest()
