"""The public import of Netlathe: `from netlathe import Client`.

    with Client() as client:                                   # NETLATHE_URL, NETLATHE_TOKEN or the local server's
        model = client.models.create("net.onnx", preprocessing={"mean": [0.5], "std": [0.25]})
        data = client.datasets.create("digits.npz")
        job = client.jobs.create(
            model=model.id, dataset=data.id,
            targets=[{"device": "local-onnxruntime-t1-fp32", "max_latency_ratio": 0.5}],
            limits={"max_accuracy_drop": 0.02}, methods=["filter_prune"], strategies=["greedy"])
        job = client.jobs.wait(job.id, progress=True)
        client.jobs.download(job.id, "out/")

Every call may be repeated safely: a POST carries an idempotency key that its retries share.

    NetlatheError
    ├── Unreachable                no answer after all retries
    ├── Untrusted                  the server's certificate is not trusted here
    ├── BadProxy                   NETLATHE_PROXY names a proxy that cannot be used
    ├── Unreadable                 an answer that is not the contract's
    ├── Damaged                    a download whose sha256 is not the promised one
    └── Refused (problem)          the server's problem document: code, detail, errors by field
        ├── Unauthorized           401, 403
        ├── NotFound               404
        ├── Conflict               409
        ├── Invalid                400, 413, 415, 422
        ├── UpgradeNeeded          426
        └── ServerFailed           429 and 5xx after all retries
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import ssl
import sys
import time
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, Self, TypeVar, cast
from urllib.parse import quote

import httpx

__version__ = "0.1.0"

T = TypeVar("T")
Json = Mapping[str, Any]
Named = str | Mapping[str, Any]  # "greedy", or {"name": "greedy", "settings": {...}}

DEFAULT_URL = "http://127.0.0.1:8000"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_PROXY_VARIABLE = "NETLATHE_PROXY"
_ENVIRONMENT = "environment"
_RETRIED_STATUS = frozenset({429, 502, 503, 504})
_SILENCE_S = 45.0  # three of the event stream's pings, which come each 15 s
_PATIENCE_S = 60.0  # of an event stream, while a server restarts
_UNTOLD = frozenset({"log.line", "evaluation.added"})  # events that alone do not change what a job says of itself


# --- errors ---------------------------------------------------------------------------------------------------------


class NetlatheError(Exception):
    """Base of everything that this module raises."""


class Unreachable(NetlatheError):
    """No answer from the server after all retries."""


class Untrusted(NetlatheError):
    """The server's certificate is not trusted here: self-signed, expired, or of another name."""


class BadProxy(NetlatheError):
    """NETLATHE_PROXY names a proxy that cannot be used."""


class Unreadable(NetlatheError):
    """The server's answer is not what the contract says."""


class Damaged(NetlatheError):
    """A download whose sha256 differs from the one that the server promised."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field of a request: its path, why, and the value the server saw."""

    field: str
    message: str
    value: Any = None


@dataclass(frozen=True)
class Problem:
    """An RFC 9457 problem document."""

    status: int
    title: str = ""
    detail: str = ""
    code: str = ""
    errors: tuple[FieldError, ...] = ()


class Refused(NetlatheError):
    """The server said no; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        by_field = "; ".join(f"{error.field}: {error.message}" for error in problem.errors)
        said = problem.detail or problem.title or f"status {problem.status}"
        super().__init__(f"{said} ({by_field})" if by_field and by_field not in said else said)
        self.problem = problem


class Unauthorized(Refused):
    """No token, a wrong one, or one that may not do this."""


class NotFound(Refused):
    """No such resource."""


class Conflict(Refused):
    """The resource's state, or another resource of this name, is in the way."""


class Invalid(Refused):
    """What was sent is wrong: `problem.errors` names the fields."""


class UpgradeNeeded(Refused):
    """The server no longer speaks this client's protocol."""


class ServerFailed(Refused):
    """The server failed, also after all retries."""


_REFUSALS: Mapping[int, type[Refused]] = {
    400: Invalid, 401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict,
    413: Invalid, 415: Invalid, 422: Invalid, 426: UpgradeNeeded, 429: ServerFailed,
}  # fmt: skip


# --- results --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together; `reason` says why where they may not be."""

    name: str
    width: int
    prunable: bool
    reason: str | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """An uploaded network."""

    id: str
    name: str
    sha256: str = ""
    state: str = "ready"
    parameters: int = 0
    macs: int = 0
    size_bytes: int = 0
    input_shape: tuple[int, ...] = ()
    groups: tuple[ChannelGroup, ...] = ()
    warnings: tuple[Any, ...] = ()
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Dataset:
    """An uploaded data set."""

    id: str
    name: str
    sha256: str = ""
    state: str = "ready"
    train_count: int = 0
    test_count: int = 0
    classes: int = 0
    image_shape: tuple[int, ...] = ()
    warnings: tuple[Any, ...] = ()
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Progress:
    """`fraction` of the whole job, 0..1; `done` of `total` steps of its phase."""

    fraction: float = 0.0
    done: float | None = None
    total: float | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds on one device: predicted with its interval, measured with its upper bound."""

    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    measured: float | None = None
    measured_high: float | None = None


@dataclass(frozen=True)
class AccuracyDrop:
    """Accuracy below the control's on the same `n` samples, with its 95 % interval; 0.01 is one point."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Summary:
    """One network of a job: the original, the control, the best or the nearest.

    `metrics`: what the server counts on it, by metric; those of the first version have fields of their own as well.
    """

    evaluation_id: str | None = None
    strategy: str | None = None
    accuracy: float | None = None
    accuracy_drop: AccuracyDrop | None = None
    test_accuracy: float | None = None
    latency_ms: Mapping[str, Latency] = field(default_factory=dict)
    macs: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    nonzeros: int | None = None
    stored_bytes: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a job failed."""

    code: str = ""
    step: str | None = None
    field: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Job:
    """A job; `raw` holds all that the server said, what it was asked for included."""

    id: str
    name: str
    state: str
    verdict: str | None = None
    phase: str | None = None
    progress: Progress = field(default_factory=Progress)
    eta_s: float | None = None
    warnings: tuple[Any, ...] = ()
    waiting_for: Json | None = None
    original: Summary | None = None
    control: Summary | None = None
    best: Summary | None = None
    nearest: Summary | None = None
    evaluations_done: int = 0
    failure: Failure | None = None
    retry_of: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Evaluation:
    """One evaluated candidate of a job."""

    id: str
    number: int
    strategy: str
    status: str
    fidelity: str = ""
    values: Json = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    feasible: bool | None = None
    on_front: bool | None = None
    elapsed_s: float | None = None
    reason: str | None = None
    table_epoch: int | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Artifact:
    """A file that a job made."""

    id: str
    kind: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Device:
    """One configuration of one machine."""

    id: str
    name: str
    machine: str = ""
    kind: str = ""
    runtime: str = ""
    runtime_version: str = ""
    threads: int = 1
    dtype: str = ""
    emulated: bool = False
    state: str = ""
    coverage: float | None = None
    error_mape: float | None = None
    last_seen_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Prediction:
    """A latency summed from a device's table; `latency_ms` is None where the table knows nothing of the network."""

    latency_ms: float | None
    low_ms: float | None = None
    high_ms: float | None = None
    coverage: float = 0.0
    missing: int = 0
    blocks: tuple[Json, ...] = ()
    warnings: tuple[Any, ...] = ()
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Measurement:
    """A whole network timed on a device."""

    id: str
    state: str
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    rounds: int | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Token:
    """A person's or an enrolment token; `token` is there once, in the answer that made it."""

    id: str
    kind: str
    name: str
    expires_at: datetime | None = None
    token: str | None = field(default=None, repr=False)
    used_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Event:
    """One line of the event stream; `number` resumes it. `open` and `ping` say only that the stream is alive."""

    number: int | None
    type: str
    data: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `total` counts the whole list."""

    items: tuple[T, ...]
    total: int
    page: int
    page_size: int

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: type[T], data: object) -> T:
    """A result from JSON: unknown keys are ignored (version 1 only gains fields), a wrong one is Unreadable."""
    if not isinstance(data, Mapping):
        raise Unreadable(f"expected a {kind.__name__}, the server sent {type(data).__name__}")
    hints = _hints(cast(Any, kind))
    names = [item.name for item in fields(cast(Any, kind))]
    try:
        values = {name: _value(hints[name], data[name]) for name in names if name in data and name != "raw"}
        return kind(**values, **({"raw": data} if "raw" in names else {}))
    except (TypeError, ValueError) as error:
        raise Unreadable(f"the server's {kind.__name__} cannot be read: {error}") from error


def _value(hint: Any, data: Any) -> Any:
    if data is None:
        return None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _value(next(part for part in inner if part is not type(None)), data)
    if origin is tuple:
        return tuple(_value(inner[0], item) for item in data)
    if isinstance(data, Mapping) and len(inner) == 2:
        return {key: _value(inner[1], item) for key, item in data.items()}
    if is_dataclass(hint):
        return _read(cast(type, hint), data)
    return datetime.fromisoformat(data) if hint is datetime else data


# --- the client -----------------------------------------------------------------------------------------------------


def data_dir() -> Path:
    """Where `netlathe serve` keeps its data: NETLATHE_DATA_DIR, else the user's data folder."""
    import platformdirs

    named = os.environ.get("NETLATHE_DATA_DIR")
    return Path(named) if named else platformdirs.user_data_path("netlathe", appauthor=False)


def _token(url: str) -> str | None:
    """NETLATHE_TOKEN, else the first user's token of a server on this machine, else None.

    That token is not shown to a server elsewhere, unless NETLATHE_DATA_DIR says that the folder is its own.
    """
    token = os.environ.get("NETLATHE_TOKEN")
    if token:
        return token.strip()
    if not is_loopback(httpx.URL(url).host) and "NETLATHE_DATA_DIR" not in os.environ:
        return None
    try:
        return (data_dir() / "user-token").read_text().strip()
    except OSError:
        return None


# The way to the server: hw_profiles/agent/proxy.py holds the agent's copy, tests/test_proxy.py both.


def is_loopback(host: str) -> bool:
    """True for `localhost` and for an address of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_to(url: str) -> str:
    """The proxy to a server: "" for none, `environment`, or its URL.

    Loopback is reached directly. Any other server is reached through the proxy that NETLATHE_PROXY names, or, if that
    is `environment`, through those of http_proxy, https_proxy, all_proxy and no_proxy; else directly, because a shell's
    proxy was set for other programs and would be shown the token.
    """
    return "" if is_loopback(httpx.URL(url).host) else os.environ.get(_PROXY_VARIABLE, "").strip()


def shown_proxy(proxy: str) -> str:
    """A proxy as a person may read it: without user and password."""
    scheme, mark, rest = proxy.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _through(url: str) -> str:
    proxy = proxy_to(url)
    if proxy == _ENVIRONMENT:
        return " through the proxy of the environment"
    return f" through the proxy {shown_proxy(proxy)}" if proxy else ""


def _http_client(url: str, transport: httpx.BaseTransport | None, **options: Any) -> httpx.Client:
    """An HTTP client that reaches `url` by `proxy_to`; `transport` replaces the network. Raises BadProxy."""
    proxy = proxy_to(url)
    try:
        if transport is None and proxy != _ENVIRONMENT:
            transport = httpx.HTTPTransport(proxy=proxy or None)
        return httpx.Client(transport=transport, **options)  # without a transport: the environment's
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        why = _why_no_proxy(error, proxy)
        raise BadProxy(f"{_PROXY_VARIABLE} is {shown_proxy(proxy)!r}: {why}") from error


def _why_no_proxy(error: Exception, proxy: str) -> str:
    named = "a proxy in http_proxy, https_proxy or all_proxy" if proxy == _ENVIRONMENT else "this"
    if isinstance(error, ImportError):
        return f"{named} is a SOCKS proxy, which needs: pip install 'httpx[socks]'"
    return f"{named} is no proxy's address, such as http://proxy.example:3128"


class Client:
    """Speaks the REST contract, version 1. A proxy is used only as `proxy_to` says.

    Args:
        url: the server; NETLATHE_URL where None, else http://127.0.0.1:8000.
        token: NETLATHE_TOKEN where None, else DATA_DIR/user-token.
        timeout_s: of one request without its upload or download.
        retries: how often a request without an answer, or answered 429, 502, 503 or 504, is sent again.
        backoff_s: wait before the first retry, doubled each time, unless the server says Retry-After.
        transport, sleep, clock: for tests.

    Raises:
        BadProxy: see `proxy_to`.
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
        self.url = (url or os.environ.get("NETLATHE_URL") or DEFAULT_URL).rstrip("/")
        token = token or _token(self.url)
        if token and not re.fullmatch(r"[!-~]+", token):  # a header would carry it into the transport's error
            says = "the token has a space, a line break or a letter outside ASCII within, as no token of a server has"
            raise Unauthorized(Problem(401, detail=says, code="token"))
        headers = {"User-Agent": f"netlathe/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = _http_client(self.url, transport, base_url=self.url, headers=headers, timeout=timeout_s)
        self._retries, self._backoff_s, self._timeout_s = retries, backoff_s, timeout_s
        self._sleep, self._clock = sleep, clock
        self.models = Models(self)
        self.datasets = Datasets(self)
        self.jobs = Jobs(self)
        self.artifacts = Artifacts(self)
        self.devices = Devices(self)
        self.tokens = Tokens(self)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ready(self) -> Json:
        """`{store, writes, executor, conductors}` of the server; raises ServerFailed while it is not ready."""
        return self.get("/readyz")

    def catalogue(self) -> Json:
        """Strategies, methods and metrics with the JSON Schemas of their settings, and the runtimes of the agents."""
        return self.get("/api/v1/catalogue")

    def events(self, topics: Sequence[str], since: int | None = None) -> Iterator[Event]:
        """Events as they come, without end, gap or duplicate: the stream is resumed after the last seen number.

        An `open` event follows each (re)connection, a `ping` each quiet 15 s. `reset` means that events were lost:
        read the resource again. Raises Unreachable when the server stays away for a minute.
        """
        alive_at, wait_s = self._clock(), self._backoff_s
        while True:
            try:
                for event in self._stream(topics, since):
                    alive_at, wait_s = self._clock(), self._backoff_s
                    since = since if event.number is None else event.number
                    yield event
            except (httpx.TransportError, ServerFailed) as error:
                _check_trust(error, self.url)
                if self._clock() - alive_at > _PATIENCE_S:
                    raise Unreachable(f"lost the event stream of {self.url}: {error}") from error
            self._sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    def _stream(self, topics: Sequence[str], since: int | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"} | ({} if since is None else {"Last-Event-ID": str(since)})
        timeout = httpx.Timeout(self._timeout_s, read=_SILENCE_S)
        query = {"topics": ",".join(topics)}
        with self._http.stream("GET", "/api/v1/events", params=query, headers=headers, timeout=timeout) as response:
            _check(response)
            yield Event(None, "open")
            yield from _parse_events(response.iter_lines())

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
        """One call of the contract, retried; the answer's JSON object ({} where there is none)."""
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
        """Send until there is an answer that is not worth a retry."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait_s = self._backoff_s * 2**attempt
            try:
                response = send()
            except httpx.TransportError as error:
                _check_trust(error, self.url)
                if last:
                    why = f"{error or type(error).__name__}"
                    raise Unreachable(f"no answer from {self.url}{_through(self.url)}: {why}") from error
            else:
                if last or response.status_code not in _RETRIED_STATUS:
                    _check(response)
                    return response
                wait_s = _retry_after_s(response) or wait_s
            self._sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def download(self, path: str, to: Path, sha256: str) -> Path:
        """Stream a file to `to`, which appears only when its sha256 is the promised one.

        Raises:
            Damaged: it is not, also after a second try.
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
        raise Damaged(f"{path}: sha256 {seen}, the server promised {sha256}")

    def _fetch(self, path: str, to: Path) -> str:
        """Write the answer's body to a file, from the start at each retry; returns its sha256."""
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


def _check_trust(error: BaseException, url: str) -> None:
    """Raise Untrusted where a certificate is what an error came of: trying again would not help."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        why = cause.verify_message
        raise Untrusted(
            f"the certificate of {url} is not trusted here ({why}): where it is self-signed or of a CA of your own, "
            "name its file in SSL_CERT_FILE"
        ) from error


def _check(response: httpx.Response) -> None:
    """Raise the Refused that the status stands for."""
    if not response.is_error:
        return
    response.read()
    try:
        document = response.json()
        problem = _read(Problem, {**document, "status": response.status_code})
    except (ValueError, TypeError, Unreadable):
        problem = Problem(response.status_code, title=f"{response.status_code} {response.reason_phrase}".strip())
    kind = _REFUSALS.get(response.status_code, ServerFailed if response.status_code >= 500 else Refused)
    raise kind(problem)


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdigit() else None


def _parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events (WHATWG HTML, section 9.2): fields up to a blank line. One without data is a ping.

    The first of a stream has a number: what to resume from where the stream breaks before its first event.
    """
    number: int | None = None
    kind, data, told = "message", list[str](), False
    for line in lines:
        name, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if not line:
            if data:
                yield Event(number, kind, _event_data("\n".join(data)))
            elif told:
                yield Event(number, "ping")
            number, kind, data, told = None, "message", [], False
            continue
        told = True
        if name == "data":
            data.append(text)
        elif name == "event":
            kind = text
        elif name == "id" and text.isdigit():
            number = int(text)


def _event_data(text: str) -> Json:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"an event's data is not JSON: {text[:80]!r}") from error
    return data if isinstance(data, Mapping) else {"value": data}


def default_name(path: Path, *settings: object) -> str:
    """A name that the contract takes, from the file's stem and its content: other content, other name."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    stem = re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "file"
    return f"{stem[:50]}-{digest.hexdigest()[:8]}"


class _Resource:
    """Verbs of one kind of resource."""

    path: str

    def __init__(self, client: Client) -> None:
        self._client = client

    def _at(self, ref: str, *rest: str) -> str:
        """The path of the resource with this id or name. Raises: Invalid where it is empty, which would be the list."""
        if not ref.strip():
            kind = self.path.rpartition("/")[2].removesuffix("s")
            raise Invalid(Problem(422, "Invalid input", "", "invalid", (FieldError(kind, "is empty", ref),)))
        return "/".join((self.path, quote(ref, safe=""), *rest))

    def _page(self, kind: type[T], path: str, **query: Any) -> Page[T]:
        data = self._client.get(path, query)
        items = data.get("items")
        if not isinstance(items, list):
            raise Unreadable(f"{path} answered no list of items")
        counts = [int(data.get(name, len(items))) for name in ("total", "page", "page_size")]
        return Page(tuple(_read(kind, item) for item in items), *counts)

    def _create_from_file(self, kind: type[T], file: str | Path, form: Json) -> T:
        """Upload, and wait for a check that the server went on with after its answer."""
        path = Path(file)
        sent = {name: value for name, value in form.items() if value is not None}
        data = self._client.request("POST", self.path, form=sent, file=path)
        while data.get("state") == "checking":
            self._client._sleep(1.0)
            data = self._client.get(f"{self.path}/{data['id']}")
        if data.get("state") == "refused":
            raise Invalid(
                _read(Problem, {"status": 422, "detail": "the check refused it", **(data.get("problem") or {})})
            )
        return _read(kind, data)


class Models(_Resource):
    """Uploaded networks."""

    path = "/api/v1/models"

    def create(
        self, file: str | Path, name: str | None = None, *, preprocessing: Json | None = None, output: str | None = None
    ) -> Model:
        """Upload an ONNX file; the name is made from the file's where None. The same content again: the same model.

        `output` names the output that is scored, if there is more than one; the others are kept as they are.
        """
        name = name or default_name(Path(file), preprocessing, *([] if output is None else [output]))
        pixels = None if preprocessing is None else json.dumps(preprocessing)
        return self._create_from_file(Model, file, {"name": name, "preprocessing": pixels, "output": output})

    def get(self, model: str) -> Model:
        return _read(Model, self._client.get(self._at(model)))

    def list(self, *, page: int = 1, sort: str | None = None) -> Page[Model]:
        return self._page(Model, self.path, page=page, sort=sort)

    def delete(self, model: str) -> None:
        self._client.delete(self._at(model))

    def preflight(self, model: str, device: str | None = None) -> Json:
        """Prunable share, frozen groups with reasons, share of predicted time by layer, the floor, coverage."""
        return self._client.get(self._at(model, "preflight"), {"device": device})


class Datasets(_Resource):
    """Uploaded data sets."""

    path = "/api/v1/datasets"

    def create(
        self, file: str | Path, name: str | None = None, *, layout: str | None = None, classes: int | None = None
    ) -> Dataset:
        """Upload an .npz, a Parquet or a zip file; the name is made from the file's where None."""
        name = name or default_name(Path(file), layout, classes)
        return self._create_from_file(Dataset, file, {"name": name, "layout": layout, "classes": classes})

    def get(self, dataset: str) -> Dataset:
        return _read(Dataset, self._client.get(self._at(dataset)))

    def list(self, *, page: int = 1, sort: str | None = None) -> Page[Dataset]:
        return self._page(Dataset, self.path, page=page, sort=sort)

    def delete(self, dataset: str) -> None:
        self._client.delete(self._at(dataset))


class Jobs(_Resource):
    """Jobs and what they made."""

    path = "/api/v1/jobs"

    def create(
        self,
        *,
        model: str,
        dataset: str,
        name: str | None = None,
        targets: Sequence[Json] = (),
        limits: Json | None = None,
        methods: Sequence[Named] | None = None,
        strategies: Sequence[Named] | None = None,
        budget: Json | None = None,
        training: Json | None = None,
        metric: str | None = None,
        objective: Json | None = None,
        seed: int = 0,
        force: bool = False,
    ) -> Job:
        """Submit a job; what is None is left to the server's defaults. All fields are those of the contract."""
        asked = {
            "name": name, "model": model, "dataset": dataset,
            "targets": list(targets), "limits": limits, "methods": methods, "strategies": strategies,
            "budget": budget, "training": training, "metric": metric, "objective": objective,
            "seed": seed, "force": force,
        }  # fmt: skip
        body = {key: value for key, value in asked.items() if value is not None}
        return _read(Job, self._client.post(self.path, body))

    def get(self, job: str) -> Job:
        return _read(Job, self._client.get(self._at(job)))

    def list(
        self, *, state: str | None = None, device: str | None = None, page: int = 1, sort: str | None = None
    ) -> Page[Job]:
        return self._page(Job, self.path, state=state, device=device, page=page, sort=sort)

    def _act(self, job: str, verb: Literal["cancel", "pause", "resume", "retry"]) -> Job:
        return _read(Job, self._client.post(self._at(job, verb)))

    def cancel(self, job: str) -> Job:
        return self._act(job, "cancel")

    def pause(self, job: str) -> Job:
        return self._act(job, "pause")

    def resume(self, job: str) -> Job:
        return self._act(job, "resume")

    def retry(self, job: str) -> Job:
        """A new job that asks for the same."""
        return self._act(job, "retry")

    def delete(self, job: str) -> None:
        self._client.delete(self._at(job))

    def evaluations(self, job: str, *, since: int | None = None, page: int = 1) -> Page[Evaluation]:
        return self._page(Evaluation, self._at(job, "evaluations"), since=since, page=page)

    def front(
        self,
        job: str,
        *,
        max_latency_ms: float | None = None,
        max_accuracy_drop: float | None = None,
        page: int = 1,
    ) -> Page[Evaluation]:
        query = {"max_latency_ms": max_latency_ms, "max_accuracy_drop": max_accuracy_drop, "page": page}
        return self._page(Evaluation, self._at(job, "front"), **query)

    def log(self, job: str, *, tail: int = 1000, before: int | None = None) -> Json:
        return self._client.get(self._at(job, "log"), {"tail": tail, "before": before})

    def artifacts(self, job: str) -> Page[Artifact]:
        return self._page(Artifact, self._at(job, "artifacts"))

    def download(self, job: str, folder: str | Path) -> tuple[Path, ...]:
        """Every artifact of the job, checked, into a folder that is made where it is missing."""
        return tuple(self._client.artifacts.download(artifact, folder) for artifact in self.artifacts(job))

    def watch(self, job: str) -> Iterator[Job]:
        """The job now and after each of its events; ends with the first final state."""
        found = self.get(job)
        yield found
        if found.finished:
            return
        for event in self._client.events([f"job:{found.id}"]):
            changed = found if event.type in _UNTOLD else self.get(found.id)
            if changed != found:
                found = changed
                yield found
            if found.finished:
                return

    def wait(self, job: str, *, progress: bool = False) -> Job:
        """The job in its final state; with bars on the terminal meanwhile where `progress`."""
        found: Job | None = None
        with _shown(progress) as bars:
            for found in self.watch(job):
                bars.show(found)
        assert found is not None, "watch gives the job at least once"
        return found


class Artifacts(_Resource):
    """Files that jobs made."""

    path = "/api/v1/artifacts"

    def download(self, artifact: Artifact, folder: str | Path) -> Path:
        """The artifact in a folder, its sha256 checked.

        Raises:
            Damaged: the bytes are not those that the server promised.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The server's name is no path: only its last part may choose a file here.
        name = Path(artifact.name).name or artifact.id
        return self._client.download(f"{self.path}/{artifact.id}/content", folder / name, artifact.sha256)


class Devices(_Resource):
    """Configurations of machines, their tables, and what they say about a network."""

    path = "/api/v1/devices"

    def list(self, *, page: int = 1) -> Page[Device]:
        return self._page(Device, self.path, page=page)

    def get(self, device: str) -> Device:
        return _read(Device, self._client.get(self._at(device)))

    def delete(self, device: str) -> None:
        self._client.delete(self._at(device))

    def table(self, device: str) -> Json:
        return self._client.get(self._at(device, "table"))

    def import_table(self, device: str, table: Json) -> Json:
        return self._client.post(self._at(device, "table"), table)

    def predict(self, device: str, model: str, *, fill: bool = False) -> Prediction:
        """The latency that the table says; `fill` has the agent measure what is missing, for a later call."""
        return _read(Prediction, self._client.post(self._at(device, "predict"), {"model": model, "fill": fill}))

    def measure(self, device: str, model: str, *, wait: bool = True, poll_s: float = 1.0) -> Measurement:
        """Time a whole network on the device; the finished measurement where `wait`, else the queued one."""
        data = self._client.post(self._at(device, "measurements"), {"model": model})
        found = _read(Measurement, data)
        while wait and found.state not in ("done", "failed"):
            self._client._sleep(poll_s)
            found = _read(Measurement, self._client.get(f"/api/v1/measurements/{found.id}"))
        return found


class Tokens(_Resource):
    """Tokens of people, and one-time tokens that enrol an agent."""

    path = "/api/v1/tokens"

    def create(
        self, name: str, *, kind: Literal["user", "enrolment"] = "user", expires_at: datetime | None = None
    ) -> Token:
        """A new token; its `token` is never shown again."""
        at = None if expires_at is None else expires_at.isoformat()
        return _read(Token, self._client.post(self.path, {"kind": kind, "name": name, "expires_at": at}))

    def list(self, *, page: int = 1) -> Page[Token]:
        return self._page(Token, self.path, page=page)

    def delete(self, token: str) -> None:
        self._client.delete(self._at(token))


# --- progress on a terminal -----------------------------------------------------------------------------------------


def _shown(progress: bool) -> _NoBars:
    """Progress goes to stderr, so that what a command prints can be piped: a bar, or lines where nobody watches."""
    if not progress:
        return _NoBars()
    return _Bars() if sys.stderr.isatty() else _Lines()


class _NoBars:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, job: Job) -> None:
        return None


class _Bars(_NoBars):
    """The job's bar, with its phase before it and the best network so far behind it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("queued", total=1.0, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        phase = job.phase if job.state == "running" and job.phase else job.state
        self._progress.update(self._task, description=phase, completed=job.progress.fraction, note=_note(job))


class _Lines(_NoBars):
    """A line for each phase, as for the log of a pipeline."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, job: Job) -> None:
        phase = job.phase if job.state == "running" and job.phase else job.state
        if phase != self._last:
            self._last = phase
            note = _note(job)
            sys.stderr.write(f"{phase}{': ' if note else ''}{note}\n")
            sys.stderr.flush()


def _note(job: Job) -> str:
    """`12 evaluations · best 0.975 at 1.234 ms · 40 s left`"""
    parts = []
    if job.waiting_for:
        parts.append(f"waiting for {job.waiting_for.get('device')}")
    if job.evaluations_done:
        parts.append(f"{job.evaluations_done} evaluation{'' if job.evaluations_done == 1 else 's'}")
    if job.best is not None and job.best.accuracy is not None:
        known = [latency.measured or latency.predicted for latency in job.best.latency_ms.values()]
        at = "".join(f" at {latency_ms:.3f} ms" for latency_ms in known[:1] if latency_ms is not None)
        parts.append(f"best {job.best.accuracy:.3f}{at}")
    if job.eta_s:
        parts.append(f"{job.eta_s:.0f} s left")
    return " · ".join(parts)
