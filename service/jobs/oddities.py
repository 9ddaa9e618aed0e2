"""Warnings about requests that are valid but probably not intended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.jobs import catalogue
from service.jobs.body import JobCreate
from service.jobs.objective import lowered

if TYPE_CHECKING:
    from compress.task import Task


def odd(body: JobCreate, task: Task, methods: Sequence[str]) -> list[str]:
    """Return warnings about requests that are valid but probably not intended."""
    from search.metrics import METRICS

    found = []
    if body.targets and not lowered("latency_ms", methods):
        found.append(f"targets: no method of the job makes a network faster ({', '.join(methods)})")
    if body.budget.evaluations < len(body.strategies):
        found.append(
            f"budget.evaluations: {len(body.strategies)} strategies share {body.budget.evaluations} evaluations, "
            "so some strategies get none"
        )
    limited = any(value is not None for value in body.limits.values())
    if body.objective.metric in (None, task.metric) and not body.targets and not limited:
        heading = METRICS[task.metric].heading
        found.append(f"no target, no limit, and {heading} as the objective: nothing asks for a smaller network")
    return found


def all_random(strategies: Sequence[Mapping[str, Any]], evaluations: int) -> Iterator[str]:
    """Yield a warning for each strategy whose random start-up phase is as long as the whole budget.

    In a race, the evaluations of all strategies are counted together.
    """
    for index, item in enumerate(strategies):
        family = catalogue.strategies()[item["name"]]
        startup = family.startup(family.settings(**item["settings"]))
        if startup >= evaluations:
            yield (
                f"strategies.{index}: {family.name} needs {startup} evaluations before it models anything; with a "
                f"budget of {evaluations} it is random search"
            )
