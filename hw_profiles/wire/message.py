"""Message: the base of the agents' wire types, and the checks that these types make.

Wire types are frozen dataclasses that check themselves, so that the agent needs no schema library; the service's routes
use the same classes through pydantic, which sees `__pydantic_config__` and refuses unknown keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from hw_profiles.errors import InvalidInput

MAX_TEXT = 2_000


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise InvalidInput unless `value` is a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(name, value, "must be a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidInput(name, value, f"must be a finite number from {low:g} to {high:g}")


def short(name: str, value: str, limit: int = MAX_TEXT) -> None:
    """Raise InvalidInput unless `value` is text of at most `limit` characters."""
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidInput(name, value, f"must be text of at most {limit} characters")


def matches(name: str, value: str, pattern: re.Pattern[str]) -> None:
    """Raise InvalidInput unless all of `value` matches `pattern`."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInput(name, value, f"must match {pattern.pattern}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise InvalidInput unless `value` is one of `allowed`."""
    if value not in allowed:
        raise InvalidInput(name, value, f"must be one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Message:
    """Base of all wire types."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read an answer; unknown keys are ignored.

        Raises:
            InvalidInput: a field is missing or wrong.
        """
        return cls(**known(cls, data))


def known(kind: type[Message], data: object) -> dict[str, Any]:
    """Return those entries of `data` for which `kind` has a field.

    Raises:
        InvalidInput: `data` is not an object or lacks a field.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput(kind.__name__, data, "must be an object")
    names = {item.name for item in fields(kind)}
    found = {name: value for name, value in data.items() if name in names}
    try:
        kind(**found)  # checks that all required fields are present
    except TypeError as error:
        raise InvalidInput(kind.__name__, sorted(data), str(error)) from None
    return found
