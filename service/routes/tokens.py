"""Tokens: create, list and revoke them. A secret appears only in the answer to the POST."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy.orm import InstrumentedAttribute
from starlette.responses import Response

from service.depends import OnceDep, Page, PageDep, StoreDep, UserDep, paged
from service.errors import InvalidInput
from service.http.bodies import Body, Name
from service.http.idempotency import Answer
from service.http.problem_details import documented
from service.store import tokens
from service.store.base import Tx
from service.store.tokens import Token

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])

LAST_YEAR = 9000
"""Last year in which a token may expire. Databases have no dates after the year 9999, in any time zone."""
SORTABLE: dict[str, InstrumentedAttribute[object]] = {
    "name": Token.name,
    "kind": Token.kind,
    "created_at": Token.created_at,
}


class TokenCreate(Body):
    """A request for a token: for a person, or for one machine that will enrol as an agent."""

    kind: Literal["user", "enrolment"]
    name: Name
    expires_at: Annotated[AwareDatetime, Field(strict=False)] | None = (
        None  # not strict, because JSON has dates only as text
    )


class TokenPublic(BaseModel):
    """A token without its secret."""

    id: str
    kind: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


class TokenMade(TokenPublic):
    """A new token. `token` is shown only once."""

    token: str


@router.post("", status_code=201, response_model=TokenMade, responses=documented(401, 403, 409, 422))
def create_token(body: TokenCreate, once: OnceDep, _user: UserDep) -> Response:
    """Create a token."""

    def make(tx: Tx) -> Answer:
        if body.expires_at is not None and body.expires_at.year > LAST_YEAR:
            raise InvalidInput("expires_at", body.expires_at.isoformat(), f"must lie before the year {LAST_YEAR + 1}")
        if body.expires_at is not None and body.expires_at <= tx.now:
            raise InvalidInput("expires_at", body.expires_at.isoformat(), "must lie in the future")
        secret = once.secret(body.kind)
        made = tokens.create(tx, body.kind, body.name, secret, expires_at=body.expires_at)
        answer = TokenMade(**_public(made).model_dump(), token=secret)
        return Answer(answer, secret_field="token", secret_kind=body.kind)

    return once(make, of=body)


@router.get("", responses=documented(401, 403, 422))
def list_tokens(store: StoreDep, _user: UserDep, page: PageDep) -> Page[TokenPublic]:
    """List all valid tokens, the oldest first."""
    with store.read() as tx:
        rows = tokens.working(tx, "user", "enrolment", "agent")
        return paged(tx, rows, page, SORTABLE, Token.id, _public, "created_at")


@router.delete("/{token_id}", status_code=204, responses=documented(401, 403, 404, 409))
def revoke_token(token_id: Annotated[str, Path(max_length=80)], store: StoreDep, _user: UserDep) -> None:
    """Revoke a token by id or name at once, and end the browser sessions that were opened with it."""
    with store.begin() as tx:
        tokens.revoke(tx, token_id)


def _public(token: Token) -> TokenPublic:
    return TokenPublic(
        id=token.id,
        kind=token.kind,
        name=token.name,
        created_at=token.created_at,
        expires_at=token.expires_at,
        used_at=token.used_at,
    )
