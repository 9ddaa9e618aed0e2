"""HostLock: on one machine either somebody measures, alone, or others compute; never both.

Two `flock` files. The *room* is held exclusively by whoever measures and shared by whoever computes. The
*gate* is a turnstile: everybody passes it, one at a time, and lets go of it only once inside the room. A
waiting exclusive holder therefore keeps newcomers out while the room empties (it cannot starve), and a
newcomer at the gate enters before the same measurer can come back (nor can it starve others).

The kernel drops a `flock` with its holder, so a process that dies never blocks anybody. Locks are per open
file: threads of one process exclude each other as processes do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_DIR_VARIABLE = "NETLATHE_LOCK_DIR"
"""Names the folder of the lock files where the temp folder is not shared, as between containers."""


class HostLock:
    """The lock of this machine; `folder` defaults to $NETLATHE_LOCK_DIR, else the temp folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get(LOCK_DIR_VARIABLE) or tempfile.gettempdir())
        self._gate = self.folder / "netlathe-gate.lock"
        self._room = self.folder / "netlathe-room.lock"

    def __repr__(self) -> str:
        return f"HostLock({str(self.folder)!r})"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the machine together with others that compute; waits while somebody measures.

        Raises:
            OSError: the lock files cannot be opened; the message names the file.
        """
        with self._hold(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the machine alone; waits until those inside have left, while newcomers wait behind.

        Raises:
            OSError: as `shared`.
        """
        with self._hold(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _hold(self, kind: int) -> Iterator[None]:
        room = _open(self._room)
        try:
            gate = _open(self._gate)
            try:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(room, kind)
            finally:
                os.close(gate)
            yield
        finally:
            os.close(room)


def _open(path: Path) -> int:
    """A descriptor of the lock file, made for every user of the machine where it is missing.

    An existing file is opened without O_CREAT: the kernel refuses that in a sticky folder when another
    user owns the file (fs.protected_regular). A read-only descriptor is enough for `flock`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:  # another process made it in between
        return os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(error.errno, "the folder of the host lock is missing", str(path)) from None
        raise
    os.fchmod(descriptor, 0o644)  # whatever the umask says, others must be able to open it
    return descriptor
