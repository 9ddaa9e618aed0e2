"""Child processes that cannot outlive us: each reads from a pipe whose other end we hold.

When this process ends, in whatever way, the kernel closes the pipe; the child sees the end of its stdin and
ends itself. Nothing is searched for by name, and it works on every Unix.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from hw_profiles.host_lock import LOCK_DIR_VARIABLE


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without our own settings, secrets among them; all that is kept is where the host lock lies."""
    return {
        name: value
        for name, value in environment.items()
        if name == LOCK_DIR_VARIABLE or not name.startswith("NETLATHE_")
    }


class Child:
    """One child process, running `python -m module arguments` in a session of its own.

    It inherits our environment without our settings; what it is to know is in `environment`.
    """

    def __init__(
        self, module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            env={**without_settings(os.environ), **(environment or {})},
            start_new_session=True,  # Ctrl-C is for us; a child hears of it through its pipe
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Close the pipe: the child begins to end itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self, timeout_s: float) -> int:
        """Ask, wait, and kill what is still there; its exit status."""
        self.ask_to_end()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def watch_parent(on_end: Callable[[], None]) -> None:
    """In the child: call `on_end` once, from a thread, when whoever started this process is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        on_end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
