"""Secrets: made, hashed, derived and kept in files. No secret is stored in the database or logged."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

PREFIX: Mapping[str, str] = MappingProxyType(
    {"user": "nl_u_", "agent": "nl_a_", "enrolment": "nl_e_", "sign_in": "nl_c_", "session": "nl_s_"}
)
SECRET_BYTES = 32


def new_secret(kind: str) -> str:
    """256 random bits behind the prefix of their kind."""
    return PREFIX[kind] + secrets.token_urlsafe(SECRET_BYTES)


def derived_secret(kind: str, key: bytes, *parts: str) -> str:
    """The secret that belongs to a repeated request: the same again, without being stored anywhere.

    `key` is the installation's secret (`read_or_make_key`); `parts` name the request.
    """
    message = "\n".join(f"{len(part)}:{part}" for part in (kind, *parts)).encode()
    value = hmac.new(key, message, hashlib.sha256).digest()
    return PREFIX[kind] + urlsafe_b64encode(value).rstrip(b"=").decode()


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_or_make_key(path: Path) -> bytes:
    """The installation's 32 secret bytes, made at the first call."""
    with suppress(FileExistsError):  # an earlier process, or a racing one, made it
        write_private(path, secrets.token_bytes(SECRET_BYTES))
    key = path.read_bytes()
    if len(key) != SECRET_BYTES:
        raise ValueError(f"{path} has {len(key)} bytes, not {SECRET_BYTES}: delete it to make a new one")
    return key


def write_private(path: Path, content: bytes) -> None:
    """Create a file that only this user can read; whole or not at all.

    Raises:
        FileExistsError: it is there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, a link does not replace what is there
    finally:
        temporary.unlink()


def read_user_token(path: Path) -> str:
    """The first user's token from its file.

    Raises:
        FileNotFoundError: nobody has served from this folder yet.
    """
    return path.read_text().strip()
