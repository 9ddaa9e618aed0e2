"""Proxies: the client's copy of the rule and the agent's, which may not share code, behave alike."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

import netlathe
from hw_profiles.agent import proxy as agents
from hw_profiles.agent.connection import Connection, ServerAway
from hw_profiles.agent.tls import distrust
from hw_profiles.errors import InvalidInput
from netlathe.answers import check_trust

AWAY = "http://server.invalid:8000"  # RFC 2606: no name server knows it
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Listening(ThreadingHTTPServer):
    """An HTTP server, or a proxy, that answers {} to everything and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        cast(Listening, self.server).asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def listening() -> Iterator[Listening]:
    server = Listening()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *(name.upper() for name in PROXY_VARIABLES), "NETLATHE_PROXY"):
        monkeypatch.delenv(name, raising=False)


def client_asks(url: str) -> None:
    with netlathe.Client(url, "nl_u_x", retries=0) as client:
        client.get("/x")


def agent_asks(url: str) -> None:
    with closing(Connection(url, "nl_a_x")) as connection:
        connection.call("GET", "/x")


Ask = Callable[[str], None]
BOTH = pytest.mark.parametrize("ask", [client_asks, agent_asks])
NO_ANSWER = (netlathe.Unreachable, ServerAway)
BAD = (netlathe.BadProxy, InvalidInput)


@BOTH
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "NETLATHE_PROXY"])
@pytest.mark.parametrize("proxy", [NOBODY, "socks5://127.0.0.1:9"])
def test_loopback_never_goes_through_a_proxy(
    ask: Ask, name: str, proxy: str, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy)
    ask(listening.url)
    assert len(listening.asked) == 1


@BOTH
def test_elsewhere_the_shells_proxy_gets_no_token(
    ask: Ask, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", listening.url)
    with pytest.raises(NO_ANSWER):
        ask(AWAY)
    assert not listening.asked


@BOTH
def test_elsewhere_a_named_proxy_is_used(ask: Ask, listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_PROXY", listening.url)
    ask(AWAY)
    assert [path.startswith(AWAY) for path in listening.asked] == [True]


@BOTH
def test_by_choice_the_shells_proxy_counts_with_its_exceptions(
    ask: Ask, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETLATHE_PROXY", "environment")
    monkeypatch.setenv("http_proxy", listening.url)
    ask(AWAY)
    assert len(listening.asked) == 1
    monkeypatch.setenv("no_proxy", "server.invalid")
    with pytest.raises(NO_ANSWER):
        ask(AWAY)
    assert len(listening.asked) == 1


@BOTH
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"NETLATHE_PROXY": "ftp://me:secret@proxy:1"}, "http://proxy.example:3128"),
        ({"NETLATHE_PROXY": "proxy:3128"}, "http://proxy.example:3128"),
        ({"NETLATHE_PROXY": "socks5://me:secret@proxy:1"}, "httpx[socks]"),
        ({"NETLATHE_PROXY": "environment", "all_proxy": "socks5://me:secret@proxy:1"}, "httpx[socks]"),
        ({"NETLATHE_PROXY": "environment", "http_proxy": "ftp://me:secret@proxy:1"}, "http_proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_in_words(
    ask: Ask, settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BAD) as caught:
        ask(AWAY)
    assert "NETLATHE_PROXY" in str(caught.value)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_answer_through_a_proxy_names_it_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_PROXY", "http://me:secret@127.0.0.1:9")
    for ask in (client_asks, agent_asks):
        with pytest.raises(NO_ANSWER, match=r"through the proxy http://127\.0\.0\.1:9") as caught:
            ask(AWAY)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("a.localhost", False),
        ("10.0.0.1", False), ("::2", False), ("localhost.example", False), ("server", False), ("", False),
    ],
)  # fmt: skip
def test_both_copies_know_the_same_loopback(host: str, loopback: bool) -> None:
    assert netlathe.is_loopback(host) is loopback
    assert agents.is_loopback(host) is loopback


@pytest.mark.parametrize("value", ["", "environment", "http://proxy.example:3128", "http://me:secret@proxy.example"])
@pytest.mark.parametrize("url", [AWAY, "http://127.0.0.1:8000", "https://[::1]:8000"])
def test_both_copies_choose_and_show_the_same_proxy(url: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_PROXY", value)
    assert netlathe.proxy_to(url) == agents.proxy_to(url)
    assert netlathe.shown_proxy(value) == agents.shown_proxy(value)


def test_both_copies_find_a_certificate_in_the_same_causes() -> None:
    certificate = ssl.SSLCertVerificationError(1, "x")
    certificate.verify_message = "self-signed"
    raised, within, other = OSError("a"), OSError("b"), OSError("c")
    raised.__cause__, within.__context__ = certificate, raised
    for error, why in ((certificate, "self-signed"), (raised, "self-signed"), (within, "self-signed"), (other, None)):
        assert distrust(error) == why
        if why is None:
            check_trust(error, AWAY)
        else:
            with pytest.raises(netlathe.Untrusted, match=why):
                check_trust(error, AWAY)
