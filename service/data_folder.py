"""The data folder: made where it is missing, held by one server at a time, and asked whether it takes writes."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from service.errors import InvalidInput, Unavailable

log = logging.getLogger(__name__)

LOCK = "serve.lock"


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
        log.warning("our address could not be noted in the data folder", exc_info=True)
