"""Errors of the service, and the one table that says which status each has.

ServiceError
├── InvalidInput (also ValueError)   a value that can never work: `field`, `value`
├── NotFound                         no such resource
├── Conflict                         the resource is not in a state for this; `code` says which
├── Unauthorised                     no token, or one that is unknown, revoked or expired
├── Forbidden                        a token of another kind, a foreign Origin
├── Gone                             it was there and is over (an expired lease)
├── PayloadTooLarge                  a body over its limit
├── UpgradeRequired                  an agent of a protocol that is no longer spoken
├── TooMany                          a queue is full; `retry_after_s`
└── Unavailable                      the store does not answer now; `retry_after_s`

The other folders' `InvalidInput`s have the same three parts and become the same 422. Every exception that
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
    """One thing that is wrong with a request: where, what, and the value seen."""

    field: str
    message: str
    value: object = None


class ServiceError(Exception):
    """Base of every error of this folder. `detail` is for people, `code` for programs."""

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


class InvalidInput(ServiceError, ValueError):
    """A value that can never work, whoever sends it again."""

    def __init__(self, field: str, value: object, message: str, *, code: str | None = None) -> None:
        seen = "" if value is None else f" (got {value!r})"
        super().__init__(f"{field}: {message}{seen}", code=code, errors=(FieldError(field, message, value),))
        self.field = field
        self.value = value
        self.message = message


class NotFound(ServiceError):
    """No such resource; a foreign one looks the same."""

    def __init__(self, kind: str, ref: str) -> None:
        super().__init__(f"there is no {kind} {ref!r}")


class Conflict(ServiceError):
    """The request is fine, the resource's state is not."""


class Unauthorised(ServiceError):
    """No valid credentials."""


class Forbidden(ServiceError):
    """Known, but not allowed to do this."""


class Gone(ServiceError):
    """It was there and is over."""


class PayloadTooLarge(ServiceError):
    """A body over its limit."""


class UpgradeRequired(ServiceError):
    """An agent that speaks an older protocol than we do."""


class TooMany(ServiceError):
    """A queue is full: come back later."""


class Unavailable(ServiceError):
    """Something we need does not answer: come back later."""


class Meaning(NamedTuple):
    """What an exception means over HTTP."""

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
"""Each folder's InvalidInput: all have `field`, `value` and `message`."""

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
    """The row of the nearest class of `error`; INTERNAL where there is none."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return INTERNAL
