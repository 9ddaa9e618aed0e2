"""The first user: a token in a file that only this machine's user can read, and one-time sign-in links."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from sqlalchemy.exc import IntegrityError

from service.errors import Unauthorised
from service.files.secret_values import new_secret, read_user_token, write_private
from service.settings import Settings
from service.store import tokens
from service.store.engine import Store

NAME = "owner"


def ensure_user_token(store: Store, settings: Settings) -> None:
    """Make sure that `DATA_DIR/user-token` holds a valid token.

    An existing file is trusted: if the database does not know its token, the token is stored again, so that clients can
    keep their token when an old data folder gets a new database.
    """
    with suppress(FileExistsError):
        write_private(settings.user_token_path, f"{new_secret('user')}\n".encode())
    secret = read_user_token(settings.user_token_path)
    try:
        _ensure_stored(store, secret)
    except IntegrityError:  # another server that starts on the same data folder has just stored it
        _ensure_stored(store, secret)


def _ensure_stored(store: Store, secret: str) -> None:
    with store.begin() as tx:
        try:
            tokens.find(tx, secret)
        except Unauthorised:
            taken = {token.name for token in tokens.listed(tx, "user")}
            number, name = 1, NAME
            while name in taken:
                number += 1
                name = f"{NAME}-{number}"
            tokens.create(tx, "user", name, secret)


def sign_in_code(store: Store, settings: Settings) -> str:
    """Create a code that signs in one browser once, within `sign_in_minutes`."""
    secret = new_secret("sign_in")
    with store.begin() as tx:
        expires_at = tx.now + timedelta(minutes=settings.sign_in_minutes)
        tokens.create(tx, "sign_in", "sign-in", secret, expires_at=expires_at)
    return secret
