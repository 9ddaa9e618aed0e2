"""Settings of strategies and methods: frozen dataclasses whose fields carry a line of text and bounds.

    @dataclass(frozen=True)
    class Settings:
        draws: Annotated[int, Doc("random draws per candidate"), Bounds(1, 10_000)] = 512

`Doc` and `Bounds` have the two methods that pydantic calls, so that the service's TypeAdapter puts text and bounds into
its JSON Schema. This folder itself does not need pydantic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from search.errors import InvalidInput, did_you_mean

S = TypeVar("S")


@dataclass(frozen=True)
class Doc:
    """One line of text about a setting, for forms and the catalogue."""

    text: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core_schema), "description": self.text}


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest number that a setting may have; both are allowed."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InvalidInput("bounds", (self.low, self.high), "low must not be above high")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        schema = handler(source)
        return {**schema, "ge": self.low, "le": self.high} if schema["type"] in {"int", "float"} else schema


def check_settings(kind: type[S], given: Mapping[str, object]) -> S:
    """Build the settings dataclass `kind` from a user's values; missing fields take their defaults.

    Raises: InvalidInput if a key is unknown or missing, a type is wrong or a value is out of bounds; it names the
    field.
    """
    if not is_dataclass(kind):
        raise TypeError(f"{kind!r} is not a dataclass of settings")
    known = {field.name: field for field in fields(kind)}
    for name, value in given.items():
        if name not in known:
            raise InvalidInput(f"settings.{name}", value, f"unknown setting; {did_you_mean(name, known)}")
    for name, field in known.items():
        if name not in given and _required(field):
            raise InvalidInput(f"settings.{name}", None, "this setting has no default and must be given")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _checked(f"settings.{name}", hints[name], value) for name, value in given.items()})


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _checked(field: str, hint: Any, value: object) -> object:
    """Return `value` checked against `hint`; an int is accepted for a float, and a list for a tuple, as in JSON."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        checked = _checked(field, arguments[0], value)
        for bounds in (extra for extra in arguments[1:] if isinstance(extra, Bounds)):
            _check_bounds(field, bounds, checked)
        return checked
    if origin is Literal:
        return _one_of(field, arguments, value)
    if origin in (Union, UnionType):
        return _first_fit(field, arguments, value)
    if origin is tuple:
        return _items(field, arguments, value)
    return _plain(field, hint, value)


def _check_bounds(field: str, bounds: Bounds, value: object) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, int | float) and number not in bounds:
            raise InvalidInput(field, value, f"must be between {bounds.low:g} and {bounds.high:g}")


def _one_of(field: str, options: tuple[object, ...], value: object) -> object:
    if not any(type(option) is type(value) and option == value for option in options):
        raise InvalidInput(field, value, f"must be one of {', '.join(map(repr, options))}")
    return value


def _first_fit(field: str, hints: tuple[Any, ...], value: object) -> object:
    for hint in hints:
        try:
            return _checked(field, hint, value)
        except InvalidInput:
            continue
    names = " or ".join("null" if hint is NoneType else getattr(hint, "__name__", str(hint)) for hint in hints)
    raise InvalidInput(field, value, f"must be {names}")


def _items(field: str, arguments: tuple[Any, ...], value: object) -> object:
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise TypeError(f"{field}: only tuple[X, ...] is supported in settings, not {arguments!r}")
    if not isinstance(value, list | tuple):
        raise InvalidInput(field, value, "must be a list")
    return tuple(_checked(f"{field}[{i}]", arguments[0], item) for i, item in enumerate(value))


def _plain(field: str, kind: Any, value: object) -> object:
    if kind is float and type(value) in (int, float):
        number = float(value)  # type: ignore[arg-type]  # the line above made it a number
        if not math.isfinite(number):
            raise InvalidInput(field, value, "must be a finite number")
        return number
    if type(value) is not kind:  # the types are compared exactly, because a bool must not count as an int
        names = {
            int: "a whole number",
            float: "a number",
            str: "text",
            bool: "true or false",
            NoneType: "null",
        }
        raise InvalidInput(field, value, f"must be {names.get(kind, kind)}")
    return value
