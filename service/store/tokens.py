"""Tokens: who may call. Only the sha256 of a secret is stored (256 random bits need no slow hash)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import ForeignKey, Select, String, delete, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column

from service.errors import Conflict, NotFound, Unauthorised
from service.files.secret_values import digest
from service.store.base import Base, Tx, new_id

Kind: TypeAlias = Literal["user", "agent", "enrolment", "sign_in"]


class Token(Base):
    """A bearer token. `agent_id` is set for an agent's; `used_at` for one that works once."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    agent_id: Mapped[str | None] = mapped_column(String(40), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class Session(Base):
    """A signed-in browser: the cookie's secret, hashed, stands for the token it was opened with."""

    __tablename__ = "sessions"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


def create(
    tx: Tx,
    kind: Kind,
    name: str,
    secret: str,
    *,
    expires_at: datetime | None = None,
    agent_id: str | None = None,
) -> Token:
    """Store a new token by the hash of its secret.

    Raises:
        Conflict: another live token of this kind has this name.
    """
    if kind in ("user", "enrolment") and any(token.name == name for token in listed(tx, kind)):
        raise Conflict(f"there is a {kind} token {name!r} already", code="name")
    token = Token(
        id=new_id("tok"),
        kind=kind,
        name=name,
        sha256=digest(secret),
        agent_id=agent_id,
        created_at=tx.now,
        expires_at=expires_at,
    )
    tx.session.add(token)
    tx.session.flush()
    return token


def find(tx: Tx, secret: str) -> Token:
    """The token with this secret, used or not.

    Raises:
        Unauthorised: unknown, revoked or expired.
    """
    token = tx.session.execute(select(Token).where(Token.sha256 == digest(secret))).scalar_one_or_none()
    if token is None or (token.expires_at is not None and token.expires_at <= tx.now):
        raise Unauthorised("the token is unknown, revoked or expired")
    return token


def use(tx: Tx, token: Token) -> None:
    """Spend a token that works once; of two that race, one gets it.

    Raises:
        Unauthorised: it has been used.
    """
    spent = tx.session.execute(
        update(Token).where(Token.id == token.id, Token.used_at.is_(None)).values(used_at=tx.now).returning(Token.id)
    ).scalar_one_or_none()
    if spent is None:
        raise Unauthorised("this one-time token has been used", code="token_used")


def working(tx: Tx, *kinds: Kind) -> Select[Token]:
    """Tokens of some kinds that have not expired, for a list."""
    return select(Token).where(Token.kind.in_(kinds), or_(Token.expires_at.is_(None), Token.expires_at > tx.now))


def listed(tx: Tx, *kinds: Kind) -> Sequence[Token]:
    """The same, oldest first."""
    return tx.session.execute(working(tx, *kinds).order_by(Token.created_at, Token.id)).scalars().all()


def revoke(tx: Tx, ref: str) -> None:
    """Delete the token with this id, else with this name; its sessions go with it.

    Raises:
        NotFound: no such token.
        Conflict: several have this name (one each kind), and only an id says which.
    """
    by_id = tx.session.get(Token, ref)
    named = [by_id] if by_id else [each for each in listed(tx, "user", "enrolment", "agent") if each.name == ref]
    if not named:
        raise NotFound("token", ref)
    if len(named) > 1:
        raise Conflict(f"{len(named)} tokens are named {ref!r}: give the id", code="ambiguous")
    tx.session.execute(delete(Token).where(Token.id == named[0].id))


def revoke_agent(tx: Tx, agent_id: str) -> None:
    """Delete every token of an agent."""
    tx.session.execute(delete(Token).where(Token.agent_id == agent_id))


def open_session(tx: Tx, token: Token, secret: str, expires_at: datetime) -> None:
    """Store a browser's session by the hash of its cookie; sessions that ran out go."""
    tx.session.execute(delete(Session).where(Session.expires_at <= tx.now))
    tx.session.add(Session(sha256=digest(secret), token_id=token.id, created_at=tx.now, expires_at=expires_at))


def find_session(tx: Tx, secret: str) -> Token:
    """The token behind a cookie.

    Raises:
        Unauthorised: unknown or expired, or its token is.
    """
    rows = select(Token).join(Session, Session.token_id == Token.id)
    rows = rows.where(Session.sha256 == digest(secret), Session.expires_at > tx.now)
    token = tx.session.execute(rows).scalar_one_or_none()
    if token is None or (token.expires_at is not None and token.expires_at <= tx.now):
        raise Unauthorised("the session has ended; sign in again")
    return token


def close_session(tx: Tx, secret: str) -> None:
    """End a session; an unknown one has ended already."""
    tx.session.execute(delete(Session).where(Session.sha256 == digest(secret)))
