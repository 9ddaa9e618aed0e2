"""KeptAlive: a child process that is restarted whenever it dies, until it is told to end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from service.processes.child import Child

log = logging.getLogger(__name__)

LOOK_S = 0.5
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
GOOD_LIFE_S = 60.0
"""Lifetime after which a child's death no longer counts as a failed start, so that the next wait is short again."""


class KeptAlive:
    """Keeps one child running and restarts it when it dies; `name` is its name in the log.

    `spawn` starts a child. If `spawn` fails because of the store or the machine, the error is logged and `spawn` is
    called again. `grace_s` is the time that a child has to end after it was told to end.
    """

    def __init__(self, name: str, spawn: Callable[[], Child], grace_s: float) -> None:
        self._name = name
        self._spawn = spawn
        self._grace_s = grace_s
        self._ending = threading.Event()
        self._child: Child | None = None
        self._watcher = threading.Thread(target=self._watch, name=f"watcher of {name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the newest child; None before the first child."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the first child and return at once. When a child dies, the next child is started."""
        self._watcher.start()

    def ask_to_end(self) -> None:
        """Tell the child to end, without waiting for it; no other child is started."""
        self._ending.set()
        if self._child is not None:
            self._child.ask_to_end()

    def end(self) -> None:
        """End the child and wait until it has ended."""
        self.ask_to_end()
        if self._watcher.is_alive():
            self._watcher.join(self._grace_s)
        if self._child is not None:
            self._child.end(self._grace_s)

    def _watch(self) -> None:
        rest_s = FIRST_REST_S
        while not self._ending.is_set():
            born_s = time.monotonic()
            try:
                status = self._live()
            except (SQLAlchemyError, OSError):
                log.exception("%s could not be started; trying again", self._name)
            else:
                if status is not None:
                    log.warning("%s ended with exit status %d and will be restarted", self._name, status)
            rest_s = FIRST_REST_S if time.monotonic() - born_s >= GOOD_LIFE_S else rest_s
            self._ending.wait(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    def _live(self) -> int | None:
        """Run one child to its end; return its exit status, or None if it was told to end."""
        self._child = child = self._spawn()
        while (status := child.ended()) is None and not self._ending.wait(LOOK_S):
            pass
        # This closes the pipe to a dead child. It also tells a child to end that was started while all children were
        # being told to end.
        child.ask_to_end()
        return status
