"""The data folder: create it, lock it for one server at a time, and check that it is writable."""

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
"""Smallest free space allowed. With less space, the next large write, such as a checkpoint, would fail."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""Text of the error that numpy's `tofile` raises on a full disk; nothing else in the error shows the cause."""


class NoSpace(Unavailable):
    """The disk is full; the client may retry once the operator has made room."""

    def __init__(self) -> None:
        detail = "there is no space left in the server's data folder, or in its folder of temporary files"
        super().__init__(f"{detail}; nothing was stored", code="no_space", retry_after_s=60)


def is_full(error: BaseException | None) -> bool:
    """True if an error of the system, of numpy or of SQLite means that a disk or a user's quota is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL or _SHORT_WRITE.search(str(error)) is not None
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def writes(folder: Path) -> Writes:
    """Check that the folder is writable, cheaply: write a few bytes to an unnamed temporary file."""
    try:
        if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            return "full"
        with tempfile.TemporaryFile(buffering=0, dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        return "full" if is_full(error) else "refused"
    return "ok"


def prepare(folder: Path) -> None:
    """Create the folder, accessible only to its owner, and check that files can be created in it.

    Raises:
        InvalidInput: the path is a file, or the folder is not writable.
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
    """Lock the folder against other servers during the `with` block; the kernel releases the lock when the process
    ends.

    Two servers on one folder would each start an agent with the same credentials, and each would revoke the other.

    Yields:
        A function that notes this server's address in the lock file, for the message to a second server.

    Raises:
        Unavailable: another server holds the lock; the text names its process and address.
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
    except OSError:  # the lock works without the address
        log.warning("the server's address could not be written to its lock file", exc_info=True)
