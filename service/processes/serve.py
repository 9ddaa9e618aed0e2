"""serve: run the whole service on one machine: the API in this process, a conductor and an agent as children.

The service is ready within seconds, because nothing heavy is imported here; meanwhile the conductor imports torch.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from service.app import create_app
from service.errors import InvalidInput, Unavailable
from service.files import data_folder
from service.files.first_user import ensure_user_token, sign_in_code
from service.processes.supervisor import Supervisor
from service.settings import Settings
from service.store.engine import Store, make_engine
from service.store.migrate import is_newest, migrate

log = logging.getLogger(__name__)

REQUESTS_GRACE_S = 2
"""Time that open requests have to finish after SIGTERM. Event streams end at once, and clients resume them elsewhere.
"""
AGAIN_S = 1.0
CHILDREN_GRACE_S = 11.0
"""Time that the children have to end once the time for requests is over. The two times add up to less than the 15 s
that service managers allow.
"""


def serve(
    settings: Settings,
    *,
    conductor: bool = True,
    agent: bool = True,
    ready: Callable[[str], None] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status. `ready` is called with the URL once the API answers.

    Raises:
        InvalidInput: the host is off loopback without TLS or `insecure`, or the data folder cannot be used.
        Unavailable: the database does not answer, is damaged or does not have the schema that this code needs, or
            another server uses the data folder.
    """
    check_host(settings)
    data_folder.prepare(settings.data_dir)
    # API servers on PostgreSQL may share a folder of blobs; an agent's credentials and a SQLite file cannot be shared.
    alone = agent or _on_sqlite(settings)
    with data_folder.held(settings.data_dir) if alone else nullcontext(_not_noted) as note:
        return _serve(settings, conductor=conductor, agent=agent, ready=ready, note=note)


def _serve(
    settings: Settings,
    *,
    conductor: bool,
    agent: bool,
    ready: Callable[[str], None] | None,
    note: Callable[[str], None],
) -> int:
    store = Store(make_engine(settings.url))
    _bring_up_to_date(store, settings)
    ensure_user_token(store, settings)
    listening = listen(settings)
    url = _url(settings, listening)
    note(url)

    def begin() -> None:
        if conductor:
            supervisor.start_conductor()
        if agent:
            supervisor.start_agent()
        until_done(lambda: show_sign_in(store, settings, url))
        if ready is not None:
            ready(url)

    supervisor = Supervisor(settings, store, url, CHILDREN_GRACE_S)
    app = create_app(settings, store)
    server = _Server(_configuration(settings, app), begin, supervisor.ask_to_end, app.state.netlathe.feed.end)
    # uvicorn raises the signal again when it has ended. That signal must not kill this process, which still has to end
    # its children.
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        supervisor.end()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if server.started else 1


def until_done(step: Callable[[], None]) -> None:
    """Run a start-up step, and repeat it while the database is locked or the machine is out of resources."""
    while True:
        try:
            return step()
        except (SQLAlchemyError, OSError):
            log.exception("a start-up step failed; trying again in %.0f s", AGAIN_S)
            time.sleep(AGAIN_S)


def check_host(settings: Settings) -> None:
    """Raise InvalidInput if other machines can reach the host and neither TLS nor `insecure` is set."""
    if settings.loopback or settings.tls_cert is not None or settings.insecure:
        return
    raise InvalidInput(
        "host",
        settings.host,
        "others can reach this address, and tokens would be sent unencrypted: use --tls-cert and --tls-key, "
        "or --insecure if something else encrypts the connection",
    )


class _Server(uvicorn.Server):
    """uvicorn with callbacks: when it has started, when it is told to end, and when it waits for open requests."""

    def __init__(
        self,
        config: uvicorn.Config,
        begun: Callable[[], None],
        ending: Callable[[], None],
        waiting: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._begun = begun
        self._ending = ending
        self._waiting = waiting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Objects loaded so far stay in memory. Full garbage collections would scan all of them and block requests for
        # 0.2 s, three times in the first half minute.
        gc.freeze()
        if self.started:
            # In a thread, because it starts processes and writes to the store while requests are coming in.
            threading.Thread(target=self._begun, name="begin", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._waiting()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending()
        super().handle_exit(sig, frame)


def _bring_up_to_date(store: Store, settings: Settings) -> None:
    try:
        if _on_sqlite(settings):
            migrate(store.engine)
        elif not is_newest(store.engine):
            raise Unavailable("the database does not have this version's schema; run `netlathe migrate` first")
    except DatabaseError as error:
        where = make_url(settings.url).render_as_string(hide_password=True)
        raise Unavailable(
            f"the database {where} cannot be used ({str(error.orig).strip()}); start it, restore it from a backup, "
            "or move it away to start with an empty one"
        ) from error


def _on_sqlite(settings: Settings) -> bool:
    return make_url(settings.url).get_backend_name() == "sqlite"


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket.

    Raises:
        InvalidInput: the port is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidInput("port", settings.port, f"cannot listen on {settings.host}: {error.strerror}") from error
    # Connections inherit this option. asyncio sets it only on sockets that name their protocol, which this socket does
    # not. Without the option, the body of an answer waits 40 ms for the client to acknowledge the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _url(settings: Settings, listening: socket.socket) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"{scheme}://{host}:{listening.getsockname()[1]}"


def _configuration(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=REQUESTS_GRACE_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def show_sign_in(store: Store, settings: Settings, url: str) -> None:
    """Print a link that signs in one browser once, but only on a terminal: the link must not get into logs or pipes."""
    if sys.stdout.isatty():
        sys.stdout.write(f"Sign in once: {url}/sign-in#code={sign_in_code(store, settings)}\n")
        sys.stdout.flush()


def _not_noted(_url: str) -> None:
    """Do nothing: servers that share a folder do not lock it."""


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: uvicorn has handled the signal."""
