"""Supervisor: the children of `serve`. One that dies is started again; all of them end with us."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service.lifeline import Child
from service.settings import Settings
from service.store.base import Store

if TYPE_CHECKING:
    from service.agent_child import AgentChild

log = logging.getLogger(__name__)

LOOK_S = 0.5
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
GOOD_LIFE_S = 60.0
"""A child that lived this long did not die of its start: the next rest is short again."""


class Supervisor:
    """Starts and watches a conductor, and the agent of this machine."""

    def __init__(self, settings: Settings, store: Store, url: str) -> None:
        self._settings = settings
        self._store = store
        self._url = url
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._conductor: Child | None = None
        self._agent: AgentChild | None = None

    def start_conductor(self) -> None:
        """Start a conductor and, from then on, another one whenever it dies."""
        if self._spawn():
            threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def start_agent(self) -> None:
        """Start the agent of this machine; it enrols over REST like any other."""
        from service.agent_child import AgentChild

        with self._lock:
            if not self._ending.is_set():
                folder, ca = self._settings.data_dir / "agent", self._settings.tls_cert
                self._agent = AgentChild(self._url, self._store, folder, ca=ca)
                self._agent.start()

    def ask_to_end(self) -> None:
        """Tell the children, without waiting: they end while the last requests are answered."""
        self._ending.set()
        with self._lock:
            if self._conductor is not None:
                self._conductor.ask_to_end()

    def end(self, timeout_s: float) -> None:
        """End every child; afterwards none is left."""
        self.ask_to_end()
        with self._lock, ThreadPoolExecutor() as together:
            if self._agent is not None:
                together.submit(self._agent.stop)
            if self._conductor is not None:
                together.submit(self._conductor.end, timeout_s)

    def _spawn(self) -> bool:
        with self._lock:
            if self._ending.is_set():
                return False
            self._conductor = Child("service.conductor", environment=_environment(self._settings))
            return True

    def _watch(self) -> None:
        rest_s, born_s = FIRST_REST_S, time.monotonic()
        while not self._ending.wait(LOOK_S):
            if self._conductor is None or (status := self._conductor.ended()) is None:
                continue
            rest_s = FIRST_REST_S if time.monotonic() - born_s >= GOOD_LIFE_S else rest_s
            self._conductor.ask_to_end()  # closes our end of the dead one's pipe
            log.warning("the conductor ended with %d; starting another in %.0f s", status, rest_s)
            if self._ending.wait(rest_s) or not self._respawn(rest_s):
                return
            rest_s, born_s = min(2 * rest_s, LONGEST_REST_S), time.monotonic()

    def _respawn(self, rest_s: float) -> bool:
        """Start another one, however often that takes; False when the service ends."""
        while not self._ending.is_set():
            try:
                return self._spawn()
            except OSError:
                log.exception("no conductor could be started; trying again in %.0f s", rest_s)
                self._ending.wait(rest_s)
        return False


def _environment(settings: Settings) -> Mapping[str, str]:
    """The settings as a child reads them again."""
    prefix = settings.model_config["env_prefix"]
    plain = settings.model_dump(mode="json", exclude_none=True)
    plain["allowed_hosts"] = None  # a conductor listens to nobody
    return {f"{prefix}{name.upper()}": str(value) for name, value in plain.items() if value is not None}
