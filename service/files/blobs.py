"""Blobs: content-addressed files on the data volume, `objects/ab/ab12...`.

A file appears under its name either complete or not at all: it is written and hashed in a temporary file on the same
volume, synced and renamed, and then its folder is synced. The row (store/blobs.py) follows in the caller's
transaction; `sweep` deletes files that never got a row.
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
        """Return the path of the file with this content.

        Raises:
            KeyError: there is no such content, or `sha256` is not a digest.
        """
        if not _SHA256.match(sha256) or not (path := self._place(sha256)).is_file():
            raise KeyError(sha256)
        return path

    def put_chunks(self, chunks: Iterable[bytes], limit_bytes: int | None = None) -> StoredBlob:
        """Store a stream of bytes.

        Raises:
            PayloadTooLarge: the stream is longer than `limit_bytes`; nothing is stored.
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
        """Store a content from memory."""
        return self.put_chunks([content])

    def put_file(self, path: Path) -> StoredBlob:
        """Store a copy of a file."""
        return self.put_chunks(read_chunks(path))

    def beside(self, sha256: str, name: str) -> bytes | None:
        """Return the bytes of the file with this name that is kept beside a content; None if there is no such file."""
        try:
            return self._place(f"{sha256}.{name}").read_bytes()
        except FileNotFoundError:
            return None

    def keep_beside(self, sha256: str, name: str, content: bytes) -> None:
        """Store data derived from a content beside it, completely or not at all; it is deleted with the content."""
        temporary = self._incoming / secrets.token_hex(16)
        try:
            temporary.write_bytes(content)
            temporary.replace(self._place(f"{sha256}.{name}"))
        finally:
            temporary.unlink(missing_ok=True)

    def record(self, tx: Tx, blob: StoredBlob) -> None:
        """Write the row of a stored blob in the transaction that refers to it.

        Raises:
            KeyError: the file does not exist, or was just deleted.
        """
        rows.record(tx, blob)
        self.path(blob.sha256)

    def drop(self, store: Store, sha256: str) -> None:
        """Delete a content at once with the files derived from it, unless a row refers to it."""
        self._remove(store, sha256, lambda: [*self._place(sha256).parent.glob(f"{sha256}*")])

    def sweep(self, store: Store) -> int:
        """Delete unreferenced contents (with their decoded copies) and temporary files that are more than a day old.

        Returns:
            The number of deletions.
        """
        limit = time.time() - KEEP_UNREFERENCED_S
        with store.read() as tx:
            kept = rows.referenced(tx)
        unwanted = (path for path in self.root.glob("*/*") if _content(path).name not in kept)
        old = list(islice((path for path in unwanted if _is_older(path, limit)), SWEEP_AT_MOST))
        return sum(self._remove(store, _content(path).name, partial(_still_old, path, limit)) for path in old)

    def _remove(self, store: Store, sha256: str, found: Callable[[], Sequence[Path]]) -> bool:
        """Delete the files that `found` finds, unless a row refers to the content; return True if there were any.

        The files are deleted in the transaction that deletes the row, so that no new reference can appear meanwhile.
        """
        try:
            with store.begin() as tx:
                paths = found() if rows.forget(tx, sha256) else ()
                for path in paths:
                    _delete(path)
        except IntegrityError:  # a new row now refers to the content
            return False
        return bool(paths)

    def _place(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


def _is_older(path: Path, limit: float) -> bool:
    """True if a file was written before `limit` (Unix time, in seconds); False if it no longer exists."""
    try:
        return path.stat().st_mtime < limit
    except FileNotFoundError:
        return False


def _content(path: Path) -> Path:
    """Return the path of the content that a file belongs to: `<sha256>` for a derived file `<sha256>.<name>`."""
    return path.with_name(path.name.partition(".")[0])


def _still_old(path: Path, limit: float) -> list[Path]:
    """Return the path if the file is old, unless its content was just stored again and the row is yet to be
    written.
    """
    content = _content(path)
    stored_again = content.exists() and not _is_older(content, limit)
    return [path] if _is_older(path, limit) and not stored_again else []


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
