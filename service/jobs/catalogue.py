"""What this installation offers: strategies, methods, tasks and metrics, discovered once and checked against.

Methods bring torch with them: nothing of this is imported before somebody asks, so that a server answers
at once after its start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

import search.errors
from service.errors import InvalidInput

if TYPE_CHECKING:
    from compress.method import MethodFamily
    from compress.task import Task
    from search.metric import Metric
    from search.strategy import StrategyFamily


@cache
def strategies() -> Mapping[str, StrategyFamily]:
    """Every strategy, by name."""
    from search import strategies as found

    return {name: found.load(name) for name in found.names()}


@cache
def methods() -> Mapping[str, MethodFamily]:
    """Every method, by name."""
    from compress import methods as found

    return {name: found.load(name) for name in found.names()}


@cache
def tasks() -> Mapping[str, Task]:
    """Every task, by name, the default first.

    Raises:
        LookupError: the metric of a task is no scored one.
    """
    from compress import tasks as found
    from search.metrics import METRICS

    known = {name: found.load(name) for name in found.names()}
    for name, task in known.items():
        if task.metric not in METRICS or not METRICS[task.metric].scored:
            raise LookupError(f"task {name} names the metric {task.metric!r}, which is no scored row of search.metrics")
    return known


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in tasks():
        raise InvalidInput("task", name, f"must be one of {', '.join(tasks())}")
    return tasks()[name]


def metrics() -> Sequence[Metric]:
    """Every metric, in the order of its table."""
    from search.metrics import METRICS

    return tuple(METRICS.values())


def schema(settings: type[Any]) -> Mapping[str, Any]:
    """The JSON Schema of a settings dataclass, with defaults, bounds and a line of text per field."""
    return TypeAdapter(settings).json_schema()


def check_named(
    field: str,
    given: Sequence[tuple[str, Mapping[str, object]]],
    known: Mapping[str, StrategyFamily] | Mapping[str, MethodFamily],
) -> list[dict[str, Any]]:
    """Names with settings as they are stored: every setting filled in.

    Raises:
        InvalidInput: an unknown or repeated name, or a setting that its family refuses.
    """
    from search.space.settings import check_settings

    checked: list[dict[str, Any]] = []
    for index, (name, settings) in enumerate(given):
        if name not in known:
            raise InvalidInput(f"{field}.{index}", name, f"must be one of {', '.join(sorted(known))}")
        if any(item["name"] == name for item in checked):
            raise InvalidInput(f"{field}.{index}", name, "is named twice")
        try:
            made = check_settings(known[name].settings, settings)
        except search.errors.InvalidInput as error:
            raise InvalidInput(f"{field}.{index}.{error.field}", error.value, error.message) from error
        checked.append({"name": name, "settings": dataclasses.asdict(made)})
    return checked
