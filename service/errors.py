"""Errors of the service, and the one table that maps each to its status.

ServiceError
├── InvalidInput (also ValueError)   a value that can never work: `field`, `value`
├── NotFound                         no such resource
├── Conflict                         the resource's state does not allow this; `code` says why
├── Unauthorised                     no token, or one that is unknown, revoked or expired
├── Forbidden                        a token of the wrong kind, a foreign Origin
├── Gone                             the resource has ended (an expired lease)
├── PayloadTooLarge                  a body over its limit
├── UpgradeRequired                  an agent with a protocol that is no longer supported
├── TooMany                          a queue is full; `retry_after_s`
└── Unavailable                      the store does not answer at the moment; `retry_after_s`

`InvalidInput` of the other folders has the same three parts and becomes the same 422. Every exception that
is not in the table is a 500 with an id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import compress.errors
import hw_profiles.errors
import search.errors
import workers.errors


@dataclass(frozen=True)
class FieldError:
    """One fault of a request: the field, the message and the value seen."""

    field: str
    message: str
    value: object = None


class ServiceError(Exception):
    """Base class of the errors of this folder. `detail` is for people, `code` for programs."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.errors = errors
        self.retry_after_s = retry_after_s


MAX_SHOWN = 200
"""Number of characters of a refused value that are sent back."""


def got(value: object) -> str:
    """Return the end of a refusal, ` (got 'x')`; nothing for None. A long value is cut."""
    if value is None:
        return ""
    text = repr(value)
    return f" (got {text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + '…'})"


class InvalidInput(ServiceError, ValueError):
    """A value that can never work, so that sending it again does not help."""

    def __init__(self, field: str, value: object, message: str, *, code: str | None = None) -> None:
        super().__init__(f"{field}: {message}{got(value)}", code=code, errors=(FieldError(field, message, value),))
        self.field = field
        self.value = value
        self.message = message


class NotFound(ServiceError):
    """The resource does not exist, or belongs to another caller."""

    def __init__(self, kind: str, ref: str) -> None:
        super().__init__(f"there is no {kind} {ref!r}")


class Conflict(ServiceError):
    """The request is valid, but the resource's state does not allow it."""


class Unauthorised(ServiceError):
    """No valid credentials."""


class Forbidden(ServiceError):
    """The caller is known, but may not do this."""


class Gone(ServiceError):
    """The resource existed but has ended, such as an expired lease."""


class PayloadTooLarge(ServiceError):
    """The body is larger than its limit."""


class UpgradeRequired(ServiceError):
    """The agent speaks an older protocol than the server."""


class TooMany(ServiceError):
    """A queue is full; the client may retry later."""


class Unavailable(ServiceError):
    """Something that the server needs does not answer; the client may retry later."""


class Meaning(NamedTuple):
    """HTTP status, title and code for an exception."""

    status: int
    code: str
    title: str


INTERNAL = Meaning(500, "internal", "Internal error")
INVALID = Meaning(422, "invalid", "Invalid input")

REFUSALS = (
    InvalidInput,
    compress.errors.InvalidInput,
    hw_profiles.errors.InvalidInput,
    search.errors.InvalidInput,
    workers.errors.InvalidInput,
)
"""The class `InvalidInput` of each folder; all have `field`, `value` and `message`."""

STATUS: Mapping[type[Exception], Meaning] = {
    **dict.fromkeys(REFUSALS, INVALID),
    NotFound: Meaning(404, "not_found", "Not found"),
    Conflict: Meaning(409, "conflict", "Conflict"),
    Unauthorised: Meaning(401, "unauthorised", "Not signed in"),
    Forbidden: Meaning(403, "forbidden", "Not allowed"),
    Gone: Meaning(410, "gone", "Gone"),
    PayloadTooLarge: Meaning(413, "too_large", "Body too large"),
    UpgradeRequired: Meaning(426, "upgrade_required", "Upgrade required"),
    TooMany: Meaning(429, "too_many", "Too many"),
    Unavailable: Meaning(503, "unavailable", "Not available now"),
}


def meaning(error: Exception) -> Meaning:
    """Return the table's row for the nearest class of `error`, or INTERNAL if there is no such row."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return INTERNAL
