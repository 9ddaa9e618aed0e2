"""Connection: an agent's calls to its server, and the errors that they raise.

AgentError ├── ServerAway       no answer, or a temporary refusal; the call may be repeated │   └── Untrusted    the
server's certificate is not trusted here; it may be renewed, or `--ca` may be needed ├── LeaseLost        409 or 410:
the lease is no longer valid ├── NotAccepted      401 or 403: the credentials are not valid ├── AllRemoved       every
device that this agent offered was deleted on the server ├── UpgradeNeeded    426: this agent is too old (or too new)
└── Refused          any other refusal: repeating will not help
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx

from hw_profiles.agent.proxy import http_client, through
from hw_profiles.agent.tls import distrust, trusting

log = logging.getLogger(__name__)

T = TypeVar("T")
TIMEOUT_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class AgentError(Exception):
    """Base of the errors that end or interrupt an agent's work."""


class ServerAway(AgentError):
    """The server is not answering at present."""


class Untrusted(ServerAway):
    """The server's certificate is not trusted here."""


class LeaseLost(AgentError):
    """The lease has ended or belongs to another agent."""


class NotAccepted(AgentError):
    """The server does not know these credentials."""


class AllRemoved(AgentError):
    """The server no longer has any device of this agent."""


class UpgradeNeeded(AgentError):
    """Agent and server speak different versions of the protocol."""


class Refused(AgentError):
    """The server found something wrong with a request."""


_BY_STATUS: Mapping[int, type[AgentError]] = {
    401: NotAccepted,
    403: NotAccepted,
    408: ServerAway,
    409: LeaseLost,
    410: LeaseLost,
    426: UpgradeNeeded,
    429: ServerAway,
}


class Connection:
    """A connection that sends JSON over HTTP with a bearer token; safe to use from several threads. See `trusting` for
    `ca`.
    """

    def __init__(
        self, url: str, token: str, transport: httpx.BaseTransport | None = None, ca: Path | None = None
    ) -> None:
        self._url = url
        self._http = http_client(
            url,
            transport,
            trusting(ca, url),
            base_url=f"{url.rstrip('/')}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
        )

    def close(self) -> None:
        """Close every socket."""
        self._http.close()

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send one request; return its successful response.

        Raises:
            AgentError: the request failed; its subclass says how.
        """
        return self._answer(lambda: self._http.request(method, path, json=body, headers=headers))

    def send(self, path: str, file: Path) -> httpx.Response:
        """PUT a file to `path`, streamed from disk.

        Raises:
            AgentError: the request failed; its subclass says how.
        """
        with file.open("rb") as content:
            return self._answer(lambda: self._http.request("PUT", path, files={"file": content}))

    def _answer(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            response = request()
        except httpx.TransportError as error:
            if (why := distrust(error)) is not None:
                raise Untrusted(
                    f"the certificate of {self._url} is not trusted here ({why}): if it is self-signed or from a CA "
                    "of your own, name its file with --ca FILE or SSL_CERT_FILE"
                ) from error
            why = f"{error or type(error).__name__}"
            raise ServerAway(f"no answer from {self._url}{through(self._url)}: {why}") from error
        if response.is_success:
            return response
        raise _error(response)


def _error(response: httpx.Response) -> AgentError:
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):  # the answer came from a proxy, not from our server
        detail = response.text[:200]
    kind = ServerAway if response.status_code >= 500 else _BY_STATUS.get(response.status_code, Refused)
    return kind(f"{response.status_code}: {detail}")


def persist(call: Callable[[], T], stop: threading.Event) -> T:
    """Repeat `call` while the server is away, with growing pauses; once `stop` is set, try one last time.

    Raises:
        ServerAway: `stop` was set.
        AgentError: any other error of `call`.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except ServerAway as error:
            if stop.is_set():
                raise
            log.warning("the server does not answer (%s); retrying in about %.0f s", error, pause_s)
            # Jitter keeps the agents of a server from all returning at once; it has no other effect.
            stop.wait(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
