"""DaemonPool: threads that do not delay the end of the process.

`concurrent.futures` waits for its threads when the interpreter ends. Waiting for a stalled upload or a half-hour check
would keep a stopped server alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonPool:
    """Runs at most `size` calls at a time; further calls wait."""

    def __init__(self, size: int, name: str) -> None:
        self._room = threading.BoundedSemaphore(size)
        self._name = name

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `call(*arguments)` as soon as a thread is free."""
        future: Future[T] = Future()

        def run() -> None:
            with self._room:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    future.set_result(call(*arguments))
                except BaseException as error:  # the future passes the error on
                    future.set_exception(error)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future
