"""HostLock: on one machine, either one process measures alone, or other processes compute, but never both at once.

Two `flock` files. The *room* is held exclusively by a process that measures, and shared by the processes that compute.
The *gate* is a turnstile: processes pass it one at a time, and each releases it only once it is inside the room. A
waiting exclusive holder therefore keeps newcomers out while the room empties (it cannot starve), and a newcomer at the
gate enters before the same process can measure again (so others cannot starve either).

The kernel releases a `flock` when its holder dies, so a dead process never blocks others. Locks belong to open files,
so threads of one process exclude each other just as processes do.
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
"""Environment variable with the folder of the lock files; needed if processes do not share a temp folder, as in
containers.
"""


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
        """Share the machine with other processes that compute; wait while another process measures.

        Raises:
            OSError: the lock files cannot be opened; the message names the file.
        """
        with self._hold(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the machine alone; first wait until all other holders have left, while newcomers wait behind this
        process.

        Raises:
            OSError: see `shared`.
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
    """Open the lock file, creating it for all users of the machine if it is missing; return the descriptor.

    An existing file is opened without O_CREAT: the kernel refuses that in a sticky folder if another user owns the file
    (fs.protected_regular). A read-only descriptor is enough for `flock`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:  # another process has created it in the meantime
        return os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(error.errno, "the folder of the host lock is missing", str(path)) from None
        raise
    os.fchmod(descriptor, 0o644)  # other users must be able to open the file, whatever the umask is
    return descriptor
