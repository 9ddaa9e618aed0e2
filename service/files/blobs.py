"""Blobs: content-addressed files on the data volume, `objects/ab/ab12...`.

A file appears under its name whole or not at all: temporary file on the same volume, sha256 while writing,
fsync, rename, fsync of the folder. The row (store/blobs.py) follows in the caller's transaction; a file
whose row never came is the garbage collector's (`sweep`).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from service.errors import PayloadTooLarge
from service.store import blobs as rows
from service.store.base import Tx
from service.store.blobs import StoredBlob
from service.store.engine import Store

__all__ = ["Blobs", "StoredBlob", "read_chunks"]

CHUNK_BYTES = 1024 * 1024
KEEP_UNREFERENCED_S = 24 * 3600.0
SWEEP_AT_MOST = 500
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Blobs:
    """The files under `data_dir/objects`."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "objects"
        self._incoming = self.root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where this content lies.

        Raises:
            KeyError: no such content; also for anything that is no digest.
        """
        if not _SHA256.match(sha256) or not (path := self._place(sha256)).is_file():
            raise KeyError(sha256)
        return path

    def put_chunks(self, chunks: Iterable[bytes], limit_bytes: int | None = None) -> StoredBlob:
        """Store a stream of bytes.

        Raises:
            PayloadTooLarge: more than `limit_bytes`; nothing is kept.
        """
        temporary = self._incoming / secrets.token_hex(16)
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    size_bytes += len(chunk)
                    if limit_bytes is not None and size_bytes > limit_bytes:
                        raise PayloadTooLarge(f"the file is over the limit of {limit_bytes} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            place = self._place(digest.hexdigest())
            place.parent.mkdir(exist_ok=True)
            temporary.replace(place)
            _sync_folder(place.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return StoredBlob(digest.hexdigest(), size_bytes)

    def put_bytes(self, content: bytes) -> StoredBlob:
        """Store a content that is in memory already."""
        return self.put_chunks([content])

    def put_file(self, path: Path) -> StoredBlob:
        """Store a copy of a file."""
        return self.put_chunks(read_chunks(path))

    def beside(self, sha256: str, name: str) -> bytes | None:
        """What was kept beside a content under this name; None where nothing was."""
        try:
            return self._place(f"{sha256}.{name}").read_bytes()
        except FileNotFoundError:
            return None

    def keep_beside(self, sha256: str, name: str, content: bytes) -> None:
        """Keep what was made from a content, whole or not at all; it goes with the content, and may be made anew."""
        temporary = self._incoming / secrets.token_hex(16)
        try:
            temporary.write_bytes(content)
            temporary.replace(self._place(f"{sha256}.{name}"))
        finally:
            temporary.unlink(missing_ok=True)

    def record(self, tx: Tx, blob: StoredBlob) -> None:
        """Write the row of a stored blob with the transaction that points at it.

        Raises:
            KeyError: the file is not there, or was deleted a moment ago.
        """
        rows.record(tx, blob)
        self.path(blob.sha256)

    def drop(self, store: Store, sha256: str) -> None:
        """Delete a content at once with what was made from it, unless something points at it."""
        self._remove(store, sha256, lambda: [*self._place(sha256).parent.glob(f"{sha256}*")])

    def sweep(self, store: Store) -> int:
        """Delete contents that nothing points at with their decoded copies, and temporaries, all older than a day.

        Returns:
            How many went.
        """
        limit = time.time() - KEEP_UNREFERENCED_S
        with store.read() as tx:
            kept = rows.referenced(tx)
        unwanted = (path for path in self.root.glob("*/*") if _content(path).name not in kept)
        old = list(islice((path for path in unwanted if _is_older(path, limit)), SWEEP_AT_MOST))
        return sum(self._remove(store, _content(path).name, partial(_still_old, path, limit)) for path in old)

    def _remove(self, store: Store, sha256: str, found: Callable[[], Sequence[Path]]) -> bool:
        """Delete the files that `found` finds, unless something points at the content; whether there were any.

        In the transaction that forgets it: nobody can point at it from the look until the files are gone.
        """
        try:
            with store.begin() as tx:
                paths = found() if rows.forget(tx, sha256) else ()
                for path in paths:
                    _delete(path)
        except IntegrityError:  # somebody just pointed at it
            return False
        return bool(paths)

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


def _is_older(path: Path, limit: float) -> bool:
    """Whether a file was written before `limit`, seconds of the epoch; one that is gone was not."""
    try:
        return path.stat().st_mtime < limit
    except FileNotFoundError:
        return False


def _content(path: Path) -> Path:
    """The content that a file belongs to: itself, or what it was made from, which lies beside `<sha256>.<name>`."""
    return path.with_name(path.name.partition(".")[0])


def _still_old(path: Path, limit: float) -> list[Path]:
    """The file or folder, unless the same content was stored again a moment ago: its row is to follow."""
    content = _content(path)
    stored_again = content.exists() and not _is_older(content, limit)
    return [path] if _is_older(path, limit) and not stored_again else []


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a piece at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
