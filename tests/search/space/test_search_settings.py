from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from search.errors import InvalidInput
from search.space.settings import Bounds, Doc, check_settings
from search.strategies import load, names


@dataclass(frozen=True)
class Example:
    steps: Annotated[int, Doc("how many"), Bounds(1, 10)]
    rate: Annotated[float, Doc("how fast"), Bounds(0.0, 1.0)] = 0.5
    mode: Literal["fast", "slow"] = "fast"
    name: str | None = None
    sizes: Annotated[tuple[int, ...], Bounds(1, 9)] = (1, 2)
    verbose: bool = False


def test_what_is_given_is_taken_and_the_rest_is_default() -> None:
    made = check_settings(Example, {"steps": 3, "rate": 1, "name": "x", "sizes": [4, 5], "mode": "slow"})
    assert made == Example(3, 1.0, "slow", "x", (4, 5))
    assert type(made.rate) is float


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({}, "settings.steps", "has no default"),
        ({"steps": 1, "rat": 1}, "settings.rat", "did you mean 'rate'"),
        ({"steps": 0}, "settings.steps", "between 1 and 10"),
        ({"steps": True}, "settings.steps", "whole number"),
        ({"steps": 1.0}, "settings.steps", "whole number"),
        ({"steps": 1, "rate": float("nan")}, "settings.rate", "finite"),
        ({"steps": 1, "rate": "fast"}, "settings.rate", "must be a number"),
        ({"steps": 1, "mode": "medium"}, "settings.mode", "'fast', 'slow'"),
        ({"steps": 1, "name": 3}, "settings.name", "str or null"),
        ({"steps": 1, "sizes": 3}, "settings.sizes", "list"),
        ({"steps": 1, "sizes": [1, 10]}, "settings.sizes", "between 1 and 9"),
        ({"steps": 1, "sizes": [1, "a"]}, "settings.sizes[1]", "whole number"),
        ({"steps": 1, "verbose": 1}, "settings.verbose", "true or false"),
    ],
)
def test_what_cannot_be_is_named(given: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        check_settings(Example, given)
    assert caught.value.field == field


def test_pydantic_reads_texts_and_bounds() -> None:
    schema = TypeAdapter(Example).json_schema()["properties"]
    assert schema["steps"]["description"] == "how many"
    assert (schema["steps"]["minimum"], schema["steps"]["maximum"]) == (1, 10)
    assert schema["rate"]["default"] == 0.5
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        TypeAdapter(Example).validate_python({"steps": 11})


@pytest.mark.parametrize("name", names())
def test_every_strategy_setting_is_explained(name: str) -> None:
    settings = load(name).settings
    assert check_settings(settings, {}) == settings()
    for field, schema in TypeAdapter(settings).json_schema()["properties"].items():
        assert schema.get("description"), f"{name}.{field} has no text"
        assert "default" in schema


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InvalidInput, match="above high"):
        Bounds(2, 1)
