"""Rows of blobs: which content is on the data volume. The files themselves are service.blobs' business."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from service.store.base import Base, Tx


class Blob(Base):
    """One content. Everything that points at content has a foreign key to `sha256`."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


@dataclass(frozen=True)
class StoredBlob:
    """A content that lies durably on the volume; `record` it in the transaction that points at it."""

    sha256: str
    size_bytes: int


def record(tx: Tx, blob: StoredBlob) -> None:
    """Note that a file is on the volume; again is harmless."""
    if tx.session.get(Blob, blob.sha256) is None:
        tx.session.add(Blob(sha256=blob.sha256, size_bytes=blob.size_bytes, created_at=tx.now))
        tx.session.flush()


def referenced(tx: Tx) -> set[str]:
    """Every digest that some row of some table points at."""
    keys = [
        key.parent
        for table in Base.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name == Blob.__tablename__
    ]
    return {digest for key in keys for digest in tx.session.execute(select(key).distinct()).scalars() if digest}


def forget(tx: Tx, sha256: str) -> None:
    """Delete the row; the foreign keys refuse it while something points at it."""
    tx.session.execute(delete(Blob).where(Blob.sha256 == sha256))
