"""Strategies, methods, tasks and metrics of this installation, discovered once, and checks of names against the
catalogue.

Methods import torch, so nothing is imported before the first call. This lets a server answer as soon as it starts.
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
    """Return every strategy by name."""
    from search import strategies as found

    return {name: found.load(name) for name in found.names()}


@cache
def methods() -> Mapping[str, MethodFamily]:
    """Return every method by name."""
    from compress import methods as found

    return {name: found.load(name) for name in found.names()}


@cache
def tasks() -> Mapping[str, Task]:
    """Return every task by name, starting with the default task.

    Raises:
        LookupError: the metric of a task is not a score.
    """
    from compress import tasks as found
    from search.metrics import METRICS

    known = {name: found.load(name) for name in found.names()}
    for name, task in known.items():
        if task.metric not in METRICS or not METRICS[task.metric].scored:
            raise LookupError(
                f"task {name} names the metric {task.metric!r}, which is not a scored row of search.metrics"
            )
    return known


def task(name: str) -> Task:
    """Return the task with this name.

    Raises:
        InvalidInput: there is no such task.
    """
    if name not in tasks():
        raise InvalidInput("task", name, f"must be one of {', '.join(tasks())}")
    return tasks()[name]


def metrics() -> Sequence[Metric]:
    """Return every metric, in the order of the table of metrics."""
    from search.metrics import METRICS

    return tuple(METRICS.values())


def schema(settings: type[Any]) -> Mapping[str, Any]:
    """Return the JSON Schema of a settings dataclass, with a default, bounds and a line of text for each field."""
    return TypeAdapter(settings).json_schema()


def check_named(
    field: str,
    given: Sequence[tuple[str, Mapping[str, object]]],
    known: Mapping[str, StrategyFamily] | Mapping[str, MethodFamily],
) -> list[dict[str, Any]]:
    """Check names with settings and return them in their stored form, with every setting filled in.

    Raises:
        InvalidInput: an unknown or repeated name, or a setting that the strategy or method refuses.
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
