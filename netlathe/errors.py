"""The client's exceptions, and the problem document of a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class NetlatheError(Exception):
    """Base class of all errors that this package raises."""


class Unreachable(NetlatheError):
    """No answer from the server after all retries."""


class Untrusted(NetlatheError):
    """The server's certificate is not trusted here: it is self-signed, expired, or issued for another name."""


class BadProxy(NetlatheError):
    """NETLATHE_PROXY names a proxy that cannot be used."""


class Unreadable(NetlatheError):
    """The server's answer does not follow the contract."""


class Damaged(NetlatheError):
    """A download's sha256 differs from the sha256 that the server announced."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field of a request: its path, the reason, and the value that the server saw."""

    field: str
    message: str
    value: Any = None


@dataclass(frozen=True)
class Problem:
    """An RFC 9457 problem document."""

    status: int
    title: str = ""
    detail: str = ""
    code: str = ""
    errors: tuple[FieldError, ...] = ()


class Refused(NetlatheError):
    """The server refused a request; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        by_field = "; ".join(f"{error.field}: {error.message}" for error in problem.errors)
        said = problem.detail or problem.title or f"status {problem.status}"
        super().__init__(f"{said} ({by_field})" if by_field and by_field not in said else said)
        self.problem = problem


class Unauthorized(Refused):
    """The token is missing or wrong, or it does not allow this request."""


class NotFound(Refused):
    """The server has no such resource."""


class Conflict(Refused):
    """The resource's state, or another resource with this name, prevents the request."""


class Invalid(Refused):
    """The request is wrong: `problem.errors` names the fields."""


def invalid(field: str, value: object, message: str) -> Invalid:
    """Return the error for an argument that is refused before anything is sent."""
    detail = f"{field}: {message}" + (f" (got {value!r})" if value else "")
    return Invalid(Problem(422, "Invalid input", detail, "invalid", (FieldError(field, message, value),)))


class UpgradeNeeded(Refused):
    """The server no longer speaks this client's protocol."""


class ServerFailed(Refused):
    """The server still failed after all retries."""
