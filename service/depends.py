"""Dependencies of routes as `Annotated` aliases: `def list_jobs(store: StoreDep, user: UserDep, page: PageDep)`.

A token of the wrong kind is answered with 403; a missing or unknown token, with 401.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Request

from service.errors import Forbidden, Unauthorised
from service.files.blobs import Blobs
from service.http.event_feed import Feed
from service.http.idempotency import Once
from service.http.paging import Page, PageDep, PageQuery, paged
from service.http.security import COOKIE
from service.settings import Settings
from service.store import tokens
from service.store.engine import Store

__all__ = [
    "AgentDep",
    "BlobsDep",
    "Caller",
    "CallerDep",
    "EnrolmentDep",
    "FeedDep",
    "OnceDep",
    "OptionalUserDep",
    "Page",
    "PageDep",
    "PageQuery",
    "SettingsDep",
    "StoreDep",
    "UserDep",
    "paged",
]


@dataclass(frozen=True)
class State:
    """The state of one application; `create_app` puts it on `app.state.netlathe`."""

    settings: Settings
    store: Store
    blobs: Blobs
    feed: Feed


async def _state(request: Request) -> State:
    state = request.app.state.netlathe
    assert isinstance(state, State)
    return state


StateDep: TypeAlias = Annotated[State, Depends(_state)]


async def _settings(state: StateDep) -> Settings:
    return state.settings


async def _store(state: StateDep) -> Store:
    return state.store


async def _blobs(state: StateDep) -> Blobs:
    return state.blobs


async def _feed(state: StateDep) -> Feed:
    return state.feed


SettingsDep: TypeAlias = Annotated[Settings, Depends(_settings)]
StoreDep: TypeAlias = Annotated[Store, Depends(_store)]
BlobsDep: TypeAlias = Annotated[Blobs, Depends(_blobs)]
FeedDep: TypeAlias = Annotated[Feed, Depends(_feed)]


@dataclass(frozen=True)
class Caller:
    """The owner of the token of a request. `agent_id` is set for an agent's token."""

    token_id: str
    kind: tokens.Kind
    name: str
    agent_id: str | None


def _bearer(request: Request) -> str | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _caller(request: Request, store: StoreDep) -> Caller:
    bearer, cookie = _bearer(request), request.cookies.get(COOKIE)
    if bearer is None and cookie is None:
        raise Unauthorised("send a token as 'Authorization: Bearer ...', or sign in")
    with store.read() as tx:
        token = tokens.find(tx, bearer) if bearer is not None else tokens.find_session(tx, cookie or "")
    return Caller(token.id, _kind(token), token.name, token.agent_id)


def _kind(token: tokens.Token) -> tokens.Kind:
    match token.kind:
        case "user" | "agent" | "enrolment" | "sign_in" as kind:
            return kind
    raise ValueError(f"a stored token of unknown kind {token.kind!r}")


CallerDep: TypeAlias = Annotated[Caller, Depends(_caller)]


def _user(caller: CallerDep) -> Caller:
    return _of_kind(caller, "user")


def _agent(caller: CallerDep) -> Caller:
    return _of_kind(caller, "agent")


def _enrolment(caller: CallerDep) -> Caller:
    return _of_kind(caller, "enrolment")


def _of_kind(caller: Caller, kind: tokens.Kind) -> Caller:
    if caller.kind != kind:
        raise Forbidden(f"this needs a token of kind {kind}, but yours is of kind {caller.kind}", code="token_kind")
    return caller


def is_user(request: Request, store: Store) -> bool:
    """True if the user of this request still has access: a token can be revoked while a stream is open."""
    return _optional_user(request, store) is not None


def _optional_user(request: Request, store: StoreDep) -> Caller | None:
    try:
        caller = _caller(request, store)
    except Unauthorised:
        return None
    return caller if caller.kind == "user" else None


UserDep: TypeAlias = Annotated[Caller, Depends(_user)]
AgentDep: TypeAlias = Annotated[Caller, Depends(_agent)]
EnrolmentDep: TypeAlias = Annotated[Caller, Depends(_enrolment)]
"""A valid enrolment token, which may have been used before. Spend it with `store.tokens.use` in the transaction that
enrols the agent (in `once`).
"""
OptionalUserDep: TypeAlias = Annotated[Caller | None, Depends(_optional_user)]
"""The user of a page, or None if the page should redirect the browser to the sign-in."""


def _once(
    request: Request,
    caller: CallerDep,
    state: StateDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Once:
    return Once(
        store=state.store,
        owner=caller.token_id,
        key=idempotency_key,
        route=f"{request.method} {request.url.path}",
        keep=timedelta(days=state.settings.idempotency_days),
        key_path=state.settings.secret_path,
    )


OnceDep: TypeAlias = Annotated[Once, Depends(_once)]
