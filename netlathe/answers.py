"""Turns untrusted certificates and refused requests into errors, and computes the wait before a retry."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx

from netlathe.errors import (
    Conflict,
    Invalid,
    NotFound,
    Problem,
    Refused,
    ServerFailed,
    Unauthorized,
    Unreadable,
    Untrusted,
    UpgradeNeeded,
)
from netlathe.reading import read

_REFUSALS: Mapping[int, type[Refused]] = {
    400: Invalid, 401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict,
    413: Invalid, 415: Invalid, 422: Invalid, 426: UpgradeNeeded, 429: ServerFailed,
}  # fmt: skip


def check_trust(error: BaseException, url: str) -> None:
    """Raise Untrusted if the server's certificate caused the error, because a retry cannot help then."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        why = cause.verify_message
        raise Untrusted(
            f"the certificate of {url} is not trusted here ({why}): "
            "if it is self-signed or from your own CA, set SSL_CERT_FILE to the certificate's file"
        ) from error


def check(response: httpx.Response) -> None:
    """If the answer's status is an error, raise the subclass of Refused that belongs to it."""
    if not response.is_error:
        return
    response.read()
    try:
        document = response.json()
        problem = read(Problem, {**document, "status": response.status_code})
    except (ValueError, TypeError, Unreadable):
        problem = Problem(response.status_code, title=f"{response.status_code} {response.reason_phrase}".strip())
    kind = _REFUSALS.get(response.status_code, ServerFailed if response.status_code >= 500 else Refused)
    raise kind(problem)


def retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdigit() else None
