"""The data folder: made where it is missing, held by one server at a time, and asked whether it takes writes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from service.errors import InvalidInput, Unavailable

log = logging.getLogger(__name__)

Writes: TypeAlias = Literal["ok", "full", "refused"]

LOCK = "serve.lock"
PROBE_BYTES = 4096
LEAST_FREE_BYTES = 16 * 1024**2
"""SQLite writes a page and its log, a job its checkpoint: with less than this the next write of some size fails."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""numpy's `tofile` says no more of a full disk than this."""


class NoSpace(Unavailable):
    """The disk is full: the client may come back once somebody has made room."""

    def __init__(self) -> None:
        detail = "there is no space left in the server's data folder, or in its folder of temporary files"
        super().__init__(f"{detail}; nothing was kept", code="no_space", retry_after_s=60)


def is_full(error: BaseException | None) -> bool:
    """Whether an error of the system, of numpy or of SQLite says that a disk, or a user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL or _SHORT_WRITE.search(str(error)) is not None
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def writes(folder: Path) -> Writes:
    """Whether the folder takes writes now. Cheap: a few bytes in a file without a name, gone at once."""
    try:
        if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            return "full"
        with tempfile.TemporaryFile(buffering=0, dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        return "full" if is_full(error) else "refused"
    return "ok"


def prepare(folder: Path) -> None:
    """Make the folder, for its owner alone, and see whether files can be made in it.

    Raises:
        InvalidInput: it is a file, or cannot be written to.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput("data_dir", str(folder), "the data folder is a file, or lies below one") from error
    except OSError as error:
        raise InvalidInput("data_dir", str(folder), f"the data folder is not writable: {error.strerror}") from error


@contextmanager
def held(folder: Path) -> Iterator[Callable[[str], None]]:
    """Hold the folder against other servers for the length of the block; the kernel lets go with the process.

    Two servers on one folder would start one agent each with the same credentials, and each would revoke the other.

    Yields:
        What notes our address, for whoever comes second.

    Raises:
        Unavailable: another server holds it; the text names its process and its address.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"the data folder {folder} is in use by {_holder(file)}") from error
        _note(file, "starting")
        yield lambda url: _note(file, url)


def _holder(file: TextIO) -> str:
    pid, _, url = file.read(1000).strip().partition(" ")
    return f"process {pid} ({url})" if url else "another process"


def _note(file: TextIO, url: str) -> None:
    try:
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()} {url}\n")
        file.flush()
    except OSError:  # the lock holds without it
        log.warning("the server's address could not be written to its lock file", exc_info=True)
