"""DaemonPool: threads that do not hold up the end of the process.

`concurrent.futures` joins its threads when the interpreter ends: an upload that stalls or a check of half an hour
would keep a server alive that was told to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonPool:
    """Runs at most `size` calls at a time, the others wait their turn."""

    def __init__(self, size: int, name: str) -> None:
        self._room = threading.BoundedSemaphore(size)
        self._name = name

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `call(*arguments)` as soon as there is room."""
        future: Future[T] = Future()

        def run() -> None:
            with self._room:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    future.set_result(call(*arguments))
                except BaseException as error:  # it travels to whoever waits for the future
                    future.set_exception(error)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future
