"""The child's end of a ChildProcess: it dies with its parent, and keeps its answers apart from what libraries print.

Two ways of dying lead from one end to the other. On Linux the kernel sends a signal when the parent's thread that
started the child has ended, even if a native call keeps the interpreter's lock. Everywhere, a child that watches
its stdin sees the end of the pipe that the parent held open, and may leave in order.

As a script (`python -I -S lifeline.py SIGNAL PARENT COMMAND...`) it asks for the signal and becomes the command. The
setting survives that, so it works for programs that know nothing of us, and no code runs between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TextIO

ORPHANED = 3
"""Exit code of a child whose parent is gone."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Ask the kernel to send `by` when the thread that started this process ends. Does nothing but on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(by))


def watch_parent(on_end: Callable[[], None]) -> None:
    """Call `on_end` once, from a thread, when stdin ends: the parent closed it or is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        on_end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def leave() -> None:
    """End this process at once, whatever it is doing: its parent is gone."""
    os._exit(ORPHANED)


def claim_stdout() -> TextIO:
    """The pipe to the parent, by lines; from now on file descriptor 1 is stderr, for libraries that print."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "w", buffering=1)


def main() -> None:
    """Die with the parent, as the command that the arguments name."""
    by, parent, *command = sys.argv[1:]
    die_with_parent(int(by))
    if os.getppid() != int(parent):  # it died before the kernel was asked
        leave()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
