"""Reads results from the server's JSON."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

from netlathe.errors import Unreadable

T = TypeVar("T")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def read(kind: type[T], data: object) -> T:
    """Read a result from JSON. Unknown keys are ignored, because version 1 may gain fields. Raises Unreadable if a
    value is wrong.
    """
    if not isinstance(data, Mapping):
        raise Unreadable(f"expected a {kind.__name__}, but the server sent {type(data).__name__}")
    hints = _hints(cast(Any, kind))
    names = [item.name for item in fields(cast(Any, kind))]
    try:
        values = {name: _value(hints[name], data[name]) for name in names if name in data and name != "raw"}
        return kind(**values, **({"raw": data} if "raw" in names else {}))
    except (TypeError, ValueError) as error:
        raise Unreadable(f"the server's {kind.__name__} cannot be read: {error}") from error


def _value(hint: Any, data: Any) -> Any:
    if data is None:
        return None
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _value(next(part for part in inner if part is not type(None)), data)
    if origin is tuple:
        return tuple(_value(inner[0], item) for item in data)
    if isinstance(data, Mapping) and len(inner) == 2:
        return {key: _value(inner[1], item) for key, item in data.items()}
    if is_dataclass(hint):
        return read(cast(type, hint), data)
    return datetime.fromisoformat(data) if hint is datetime else data
