"""Answers to requests with an Idempotency-Key, stored so that a repeated request gets the same answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from service.errors import Conflict
from service.store.base import Base, Tx


class KeptAnswer(Base):
    """One stored answer. `owner` is the token of the request; `secret` is {field, kind} of a secret that the answer
    leaves out.
    """

    __tablename__ = "idempotency"
    owner: Mapped[str] = mapped_column(String(40), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    body: Mapped[dict[str, Any]]
    headers: Mapped[dict[str, Any]]
    secret: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(index=True)


class Raced(Exception):
    """Raised if another transaction claimed the same key first. By then, that transaction's answer is stored."""


def find(tx: Tx, owner: str, key: str, fingerprint: str, keep: timedelta) -> KeptAnswer | None:
    """Return the answer stored under this key.

    Raises:
        Conflict: the key was used for a different request.
    """
    kept = tx.session.get(KeptAnswer, (owner, key))
    if kept is None or kept.created_at <= tx.now - keep:
        return None
    if kept.fingerprint != fingerprint:
        raise Conflict("this Idempotency-Key was used for another request", code="idempotency_key")
    return kept


def claim(tx: Tx, owner: str, key: str, fingerprint: str, keep: timedelta) -> KeptAnswer:
    """Claim the key before the work starts, so that if two requests race, one of them waits for the other.

    Raises:
        Raced: the other request was first; this transaction must be rolled back.
    """
    tx.session.execute(delete(KeptAnswer).where(KeptAnswer.created_at <= tx.now - keep))
    tx.session.expire_all()
    kept = KeptAnswer(owner=owner, key=key, fingerprint=fingerprint, status=0, body={}, headers={}, created_at=tx.now)
    tx.session.add(kept)
    try:
        tx.session.flush()
    except IntegrityError as error:
        raise Raced from error
    return kept
