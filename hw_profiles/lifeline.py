"""The child's side of a ChildProcess: the child dies with its parent, and keeps its answers apart from what libraries
print.

Two mechanisms end the child. On Linux the kernel sends a signal when the parent's thread that started the child has
ended, even if a native call holds the interpreter's lock. On every system, a child that watches its stdin sees the pipe
from its parent close, and can then end cleanly.

Run as a script (`python -I -S lifeline.py SIGNAL PARENT COMMAND...`), this module asks the kernel for the signal and
then becomes the command. The request survives this change, so it also works for programs that are not ours, and no code
of ours runs between fork and exec.
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
    """Ask the kernel to send the signal `by` to this process when the thread that started it ends. This works only on
    Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(by))


def watch_parent(on_end: Callable[[], None]) -> None:
    """Call `on_end` once, from a thread, when stdin ends because the parent closed it or is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        on_end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def leave() -> None:
    """End this process at once, whatever it is doing, because its parent is gone."""
    os._exit(ORPHANED)


def claim_stdout() -> TextIO:
    """Return the pipe to the parent, line-buffered; file descriptor 1 becomes stderr, for libraries that print."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "w", buffering=1)


def main() -> None:
    """Set this process to die with its parent, and become the command that the arguments name."""
    by, parent, *command = sys.argv[1:]
    die_with_parent(int(by))
    if os.getppid() != int(parent):  # the parent died before the request reached the kernel
        leave()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
