"""Tokens of callers. Only the sha256 of a secret is stored (256 random bits need no slow hash)."""

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
    """A bearer token. `agent_id` is set for an agent's token, and `used_at` for a one-time token that has been used."""

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
    """Session of a signed-in browser. The hash of the cookie's secret maps to the token that opened it."""

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
    """Return the token with this secret, used or not.

    Raises:
        Unauthorised: the token is unknown, revoked or expired.
    """
    token = tx.session.execute(select(Token).where(Token.sha256 == digest(secret))).scalar_one_or_none()
    if token is None or (token.expires_at is not None and token.expires_at <= tx.now):
        raise Unauthorised("the token is unknown, revoked or expired")
    return token


def use(tx: Tx, token: Token) -> None:
    """Spend a one-time token; if two requests race, only one succeeds.

    Raises:
        Unauthorised: the token has been used already.
    """
    spent = tx.session.execute(
        update(Token).where(Token.id == token.id, Token.used_at.is_(None)).values(used_at=tx.now).returning(Token.id)
    ).scalar_one_or_none()
    if spent is None:
        raise Unauthorised("this one-time token has been used", code="token_used")


def working(tx: Tx, *kinds: Kind) -> Select[Token]:
    """Select the tokens of some kinds that have not expired, for a list."""
    return select(Token).where(Token.kind.in_(kinds), or_(Token.expires_at.is_(None), Token.expires_at > tx.now))


def listed(tx: Tx, *kinds: Kind) -> Sequence[Token]:
    """Return the tokens that `working` selects, oldest first."""
    return tx.session.execute(working(tx, *kinds).order_by(Token.created_at, Token.id)).scalars().all()


def revoke(tx: Tx, ref: str) -> None:
    """Delete the token with this id, or else with this name, and its sessions.

    Raises:
        NotFound: there is no such token.
        Conflict: tokens of several kinds have this name, so an id is needed.
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
    """Store a browser's session by the hash of its cookie, and delete expired sessions."""
    tx.session.execute(delete(Session).where(Session.expires_at <= tx.now))
    tx.session.add(Session(sha256=digest(secret), token_id=token.id, created_at=tx.now, expires_at=expires_at))


def find_session(tx: Tx, secret: str) -> Token:
    """Return the token that opened a cookie's session.

    Raises:
        Unauthorised: the session or its token is unknown or expired.
    """
    rows = select(Token).join(Session, Session.token_id == Token.id)
    rows = rows.where(Session.sha256 == digest(secret), Session.expires_at > tx.now)
    token = tx.session.execute(rows).scalar_one_or_none()
    if token is None or (token.expires_at is not None and token.expires_at <= tx.now):
        raise Unauthorised("the session has ended; sign in again")
    return token


def close_session(tx: Tx, secret: str) -> None:
    """End a session. An unknown session is ignored, because it has ended already."""
    tx.session.execute(delete(Session).where(Session.sha256 == digest(secret)))
