"""AgentChild: the agent of the server's own machine, a child that speaks the same REST calls as any other."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from hw_profiles.agent_main import GRACE_S, TOKEN_VARIABLE
from service.lifeline import Child
from service.store import tokens
from service.store.base import Store
from service.tokens import new_secret

log = logging.getLogger(__name__)

MACHINE = "local"
TOKEN_LIFE = timedelta(minutes=10)
LOOK_S = 0.5
FIRST_REST_S, LONGEST_REST_S, GOOD_LIFE_S = 1.0, 30.0, 60.0


class AgentChild:
    """Starts one agent, and another whenever it dies. It ends with this process, however that ends.

    `state_dir` keeps its credentials between starts; `runtimes` None offers all that time something real;
    `ca` is the server's own certificate.
    """

    def __init__(
        self,
        url: str,
        store: Store,
        state_dir: Path,
        *,
        machine: str = MACHINE,
        runtimes: tuple[str, ...] | None = None,
        ca: Path | None = None,
    ) -> None:
        self._store = store
        self._arguments = ["--url", url, "--machine", machine, "--state-dir", str(state_dir), "--end-with-stdin"]
        if ca is not None:
            self._arguments += ["--ca", str(ca.absolute())]
        for name in runtimes or ():
            self._arguments += ["--runtime", name]
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._watcher = threading.Thread(target=self._watch, name="agent-child", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the agent, where one runs."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the agent; returns at once."""
        self._watcher.start()

    def stop(self) -> None:
        """End the agent; afterwards neither it nor its timing process is there."""
        self._ending.set()
        with self._lock:
            if self._child is not None:
                self._child.end(GRACE_S + 1.0)
        if self._watcher.is_alive():
            self._watcher.join()

    def _spawn(self) -> None:
        secret = new_secret("enrolment")
        with self._store.begin() as tx:
            name = f"agent-{secrets.token_hex(4)}"
            tokens.create(tx, "enrolment", name, secret, expires_at=tx.now + TOKEN_LIFE)
        with self._lock:
            if not self._ending.is_set():
                if self._child is not None:
                    self._child.ask_to_end()  # closes our end of the dead one's pipe
                self._child = Child("hw_profiles.agent_main", self._arguments, {TOKEN_VARIABLE: secret})

    def _watch(self) -> None:
        rest_s = FIRST_REST_S
        while not self._ending.is_set():
            born_s = time.monotonic()
            try:
                self._spawn()
            except (SQLAlchemyError, OSError):
                log.exception("the agent of this machine could not be started; trying again in %.0f s", rest_s)
            else:
                self._await_end()
            rest_s = FIRST_REST_S if time.monotonic() - born_s >= GOOD_LIFE_S else rest_s
            self._ending.wait(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    def _await_end(self) -> None:
        """Until the agent, or this process' service, ends."""
        while not self._ending.wait(LOOK_S):
            if self._child is not None and (status := self._child.ended()) is not None:
                log.warning("the agent of this machine ended with %d; another will be started", status)
                return
