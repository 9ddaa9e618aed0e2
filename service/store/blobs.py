"""Rows of blobs: the contents on the data volume. service.files.blobs handles the files themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Column, String, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class Blob(Base):
    """One stored content. Every row that refers to the content has a foreign key to `sha256`."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


@dataclass(frozen=True)
class StoredBlob:
    """A content stored durably on the volume; `record` it in the transaction that refers to it."""

    sha256: str
    size_bytes: int


def record(tx: Tx, blob: StoredBlob) -> None:
    """Note that a file is on the volume. Idempotent. If a transaction is deleting the same row, wait for it to end."""
    insert = postgresql.insert if tx.session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(Blob).values(sha256=blob.sha256, size_bytes=blob.size_bytes, created_at=tx.now)
    tx.session.execute(row.on_conflict_do_nothing())


def referenced(tx: Tx) -> set[str]:
    """Return every digest that a row of any table refers to."""
    return {digest for key in _pointers() for digest in tx.session.scalars(select(key).distinct()) if digest}


def forget(tx: Tx, sha256: str) -> bool:
    """Delete the row of a content unless another row refers to it; return True if the row was deleted.

    Another transaction that records the same content waits for the end of this transaction, which deletes the files.

    Raises:
        IntegrityError: another transaction has just referred to the content.
    """
    record(tx, StoredBlob(sha256, 0))  # creates a missing row, so that other transactions can wait for it
    if any(tx.session.scalar(select(key).where(key == sha256).limit(1)) for key in _pointers()):
        return False
    tx.session.execute(delete(Blob).where(Blob.sha256 == sha256))
    return True


def _pointers() -> list[Column[str]]:
    """Return every column of every table that refers to a content."""
    keys = (key for table in Base.metadata.sorted_tables for key in table.foreign_keys)
    return [key.parent for key in keys if key.column.table.name == Blob.__tablename__]
