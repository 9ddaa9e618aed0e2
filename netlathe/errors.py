"""Errors that the client raises, and the problem document that a refusal carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class NetlatheError(Exception):
    """Base of everything that this module raises."""


class Unreachable(NetlatheError):
    """No answer from the server after all retries."""


class Untrusted(NetlatheError):
    """The server's certificate is not trusted here: self-signed, expired, or of another name."""


class BadProxy(NetlatheError):
    """NETLATHE_PROXY names a proxy that cannot be used."""


class Unreadable(NetlatheError):
    """The server's answer is not what the contract says."""


class Damaged(NetlatheError):
    """A download whose sha256 differs from the one that the server promised."""


@dataclass(frozen=True)
class FieldError:
    """One wrong field of a request: its path, why, and the value the server saw."""

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
    """The server said no; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        by_field = "; ".join(f"{error.field}: {error.message}" for error in problem.errors)
        said = problem.detail or problem.title or f"status {problem.status}"
        super().__init__(f"{said} ({by_field})" if by_field and by_field not in said else said)
        self.problem = problem


class Unauthorized(Refused):
    """No token, a wrong one, or one that may not do this."""


class NotFound(Refused):
    """No such resource."""


class Conflict(Refused):
    """The resource's state, or another resource of this name, is in the way."""


class Invalid(Refused):
    """What was sent is wrong: `problem.errors` names the fields."""


class UpgradeNeeded(Refused):
    """The server no longer speaks this client's protocol."""


class ServerFailed(Refused):
    """The server failed, also after all retries."""
