"""Memo: a fact that a run of a job records under a name, so that later runs need not compute it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True)
class Memo(Generic[T]):
    """The name that a fact is recorded under, and the fact's conversion to and from a JSON object."""

    name: str
    to_json: Callable[[T], Mapping[str, Any]]
    from_json: Callable[[Mapping[str, Any]], T]


def record(name: str, kind: type[D]) -> Memo[D]:
    """Return a memo of a dataclass of plain values. A field that an older version did not write takes its default."""
    known = {each.name for each in fields(kind)}
    return Memo(name, asdict, lambda data: kind(**{key: value for key, value in data.items() if key in known}))
