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
    if body.budget.finalists < len(body.targets):
        found.append(
            f"budget.finalists: {body.budget.finalists} trained for {len(body.targets)} devices, so some devices get "
            "no network of their own"
        )
    limited = any(value is not None for value in body.limits.values())
    if body.objective.metric in (None, task.metric) and not body.targets and not limited:
        heading = METRICS[task.metric].heading
        found.append(f"no target, no limit, and {heading} as the objective: nothing asks for a smaller network")
    loose = [] if _bounds(body) else _loose(body)
    if loose and body.objective.metric in (None, task.metric):
        found.append(f"{', '.join(loose)}: a ratio of 1 or more asks for nothing smaller than the original")
    return found


def _loose(body: JobCreate) -> list[str]:
    """Return the ratios of 1 or more, by field."""
    of_targets = {
        f"targets.{index}.max_latency_ratio": each.max_latency_ratio for index, each in enumerate(body.targets)
    }
    of_limits = {f"limits.{name}": value for name, value in body.limits.items() if name.endswith("_ratio")}
    return [field for field, value in (of_targets | of_limits).items() if value is not None and value >= 1]


def _bounds(body: JobCreate) -> bool:
    """True if a limit of the job, other than a loss of score and a ratio of 1 or more, bounds the network."""
    if any(each.max_latency_ratio is None or each.max_latency_ratio < 1 for each in body.targets):
        return True
    given = {name: value for name, value in body.limits.items() if value is not None and not name.endswith("_drop")}
    return any(not name.endswith("_ratio") or value < 1 for name, value in given.items())


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
