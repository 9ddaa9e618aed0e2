"""Session: sign a browser in with the one-time code that `serve` prints, or with a token."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel, SecretStr, model_validator
from starlette.responses import Response

from service.depends import SettingsDep, StoreDep, UserDep
from service.errors import Unauthorised
from service.files.secret_values import new_secret, read_user_token
from service.http.bodies import Body
from service.http.json_route import JsonRoute
from service.http.problem_details import documented
from service.http.security import COOKIE
from service.settings import Settings
from service.store import tokens
from service.store.base import Tx

router = APIRouter(prefix="/api/v1/session", tags=["session"], route_class=JsonRoute)


class SignIn(Body):
    """A request to sign in, with exactly one of the two fields."""

    code: SecretStr | None = None
    token: SecretStr | None = None

    @model_validator(mode="after")
    def _one(self) -> SignIn:
        if (self.code is None) == (self.token is None):
            raise ValueError("needs exactly one of code and token")
        return self


class SessionPublic(BaseModel):
    """The user who is signed in."""

    name: str


@router.post("", status_code=201, responses=documented(401, 403, 422))
def sign_in(
    body: SignIn, request: Request, response: Response, store: StoreDep, settings: SettingsDep
) -> SessionPublic:
    """Sign in: set a cookie that scripts cannot read and that pages of other sites do not send."""
    secret = new_secret("session")
    keep = timedelta(days=settings.session_days)
    with store.begin() as tx:
        token = _token_behind(tx, body, settings)
        tokens.open_session(tx, token, secret, tx.now + keep)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(keep.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return SessionPublic(name=token.name)


def _token_behind(tx: Tx, body: SignIn, settings: Settings) -> tokens.Token:
    """Return the user's token for which a session will be opened. A code stands for the first user's token."""
    if body.token is not None:
        token = tokens.find(tx, body.token.get_secret_value())
        if token.kind != "user":
            raise Unauthorised("only a user's token can sign in")
        return token
    assert body.code is not None
    code = tokens.find(tx, body.code.get_secret_value())
    if code.kind != "sign_in":
        raise Unauthorised("this is not a sign-in code")
    tokens.use(tx, code)
    return tokens.find(tx, read_user_token(settings.user_token_path))


@router.get("", responses=documented(401, 403))
def who_is_signed_in(user: UserDep) -> SessionPublic:
    """Return the owner of the cookie or token."""
    return SessionPublic(name=user.name)


@router.delete("", status_code=204)
def sign_out(request: Request, response: Response, store: StoreDep) -> None:
    """Sign out: end the session, if there is one."""
    secret = request.cookies.get(COOKIE)
    if secret is not None:
        with store.begin() as tx:
            tokens.close_session(tx, secret)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
