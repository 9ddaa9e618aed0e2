"""Secrets: functions that create, hash and derive secrets and store them in files. No secret is stored in the database
or logged.
"""

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
    """Return a new secret: the prefix of its kind, followed by 256 random bits."""
    return PREFIX[kind] + secrets.token_urlsafe(SECRET_BYTES)


def derived_secret(kind: str, key: bytes, *parts: str) -> str:
    """Derive the secret of a request. A repeated request gets the same secret, although it is not stored.

    `key` is the installation's secret (`read_or_make_key`); `parts` name the request.
    """
    message = "\n".join(f"{len(part)}:{part}" for part in (kind, *parts)).encode()
    value = hmac.new(key, message, hashlib.sha256).digest()
    return PREFIX[kind] + urlsafe_b64encode(value).rstrip(b"=").decode()


def digest(secret: str) -> str:
    """Return the digest under which a secret is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_or_make_key(path: Path) -> bytes:
    """Return the installation's 32 secret bytes. The first call creates them."""
    with suppress(FileExistsError):  # an earlier or concurrent process created the file
        write_private(path, secrets.token_bytes(SECRET_BYTES))
    key = path.read_bytes()
    if len(key) != SECRET_BYTES:
        raise ValueError(f"{path} has {len(key)} bytes, not {SECRET_BYTES}: delete the file to get a new key")
    return key


def write_private(path: Path, content: bytes) -> None:
    """Create a file that only this user can read, completely or not at all.

    Raises:
        FileExistsError: the file exists already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, a link does not replace an existing file
    finally:
        temporary.unlink()


def read_user_token(path: Path) -> str:
    """Read the first user's token from its file.

    Raises:
        FileNotFoundError: no server has used this folder yet.
    """
    return path.read_text().strip()
