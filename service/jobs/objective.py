"""Checks of a job's objective and limits: which metrics the job may name, and which methods can lower them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import search.errors
from service.errors import InvalidInput
from service.jobs import catalogue
from service.jobs.body import JobCreate, pairs

if TYPE_CHECKING:
    from compress.task import Task
    from search.metric import Metric
    from search.metrics import Limit


def check_metrics(body: JobCreate, task: Task) -> None:
    from search.errors import did_you_mean
    from search.metrics import LIMITS, METRICS

    if body.metric not in (None, task.metric):
        raise InvalidInput("metric", body.metric, f"must be {task.metric}")
    _check_objective(body, task.metric)
    given = [each for each, limit in LIMITS.items() if _is_offered(limit, task.metric)]
    for name, value in body.limits.items():
        if name not in LIMITS:
            raise InvalidInput(f"limits.{name}", value, f"no such limit; {did_you_mean(name, given)}")
        limit = LIMITS[name]
        if limit.metric.per_device:
            raise InvalidInput(f"limits.{name}", value, "a limit on latency belongs in `targets`, with its device")
        if not limit.metric.decides:
            score = METRICS[task.metric].heading
            told = f"{score} on the test part does not decide the verdict; limit {score} instead"
            raise InvalidInput(f"limits.{name}", value, told)
        if not _may_be_limited(limit.metric, task.metric):
            told = f"the task {task.name} is judged by {task.metric}, not by {limit.metric.name}"
            raise InvalidInput(f"limits.{name}", value, told)
        if limit.caps_a_score:
            told = f"a higher {limit.metric.heading} is better, so it has no upper limit; "
            told += f"did you mean 'max_{limit.metric.name}_drop'?"
            raise InvalidInput(f"limits.{name}", value, told)
        if value is not None:
            try:
                limit.check(value)
            except search.errors.InvalidInput as error:
                raise InvalidInput(f"limits.{name}", value, error.message) from error


def _is_offered(limit: Limit, deciding: str) -> bool:
    return _may_be_limited(limit.metric, deciding) and not limit.caps_a_score


def _may_be_limited(metric: Metric, deciding: str) -> bool:
    """True if `limits` may name the metric. A latency, which belongs to a device, and another task's score are not
    allowed.
    """
    return not metric.per_device and _may_be_wanted(metric, deciding)


def _may_be_wanted(metric: Metric, deciding: str) -> bool:
    """True if a job that is judged by the score `deciding` may have this metric as its objective."""
    return metric.decides and (not metric.scored or metric.name == deciding)


def _check_objective(body: JobCreate, deciding: str) -> None:
    """Raise InvalidInput if a strategy of the job cannot judge candidates by this objective.

    To make a network as small as possible within a limit on its score, the search must know each candidate's score
    after training.
    """
    from search.metrics import METRICS

    name, goal = body.objective.metric or deciding, body.objective.goal
    known = [metric.name for metric in METRICS.values() if _may_be_wanted(metric, deciding)]
    if name not in known:
        raise InvalidInput("objective.metric", name, f"must be one of {', '.join(known)}")
    if goal not in (None, METRICS[name].goal):
        raise InvalidInput("objective.goal", goal, f"must be {METRICS[name].goal}")
    if name == deciding:
        return
    if METRICS[name].per_device and not body.targets:
        raise InvalidInput("objective.metric", name, "is measured on a device, so the job needs a target")
    drop = f"max_{deciding}_drop"
    if not body.limits.get(f"min_{deciding}") and body.limits.get(drop) is None:
        told = f"needs a limit on {METRICS[deciding].heading}, such as {drop}"
        raise InvalidInput("objective.metric", name, told)
    known_strategies = catalogue.strategies()
    for index, (strategy, _) in enumerate(pairs(body.strategies)):
        if strategy in known_strategies and not known_strategies[strategy].trains:
            trains = ", ".join(each for each, family in known_strategies.items() if family.trains)
            wanted = (
                f"judges untrained candidates; if {name} is the objective, only these strategies can be used: {trains}"
            )
            raise InvalidInput(f"strategies.{index}", strategy, wanted)


def check_room(limits: Mapping[str, float | None]) -> None:
    """Raise InvalidInput if the lower bound of a metric is above its upper bound."""
    from search.metrics import METRICS

    for name in METRICS:
        low, high = limits.get(f"min_{name}"), limits.get(f"max_{name}")
        if low is not None and high is not None and low > high:
            raise InvalidInput(f"limits.min_{name}", low, f"must be at most limits.max_{name}, which is {high:g}")


def check_lowered(metric: str, deciding: str, methods: Sequence[str]) -> None:
    """Raise InvalidInput if the objective is a metric that no method of the job lowers."""
    if metric == deciding or lowered(metric, methods):
        return
    known = catalogue.methods()
    do = ", ".join(name for name in known if lowered(metric, [name]))
    raise InvalidInput("objective.metric", metric, f"none of the methods ({', '.join(methods)}) lowers it; {do} would")


def lowered(metric: str, methods: Sequence[str]) -> bool:
    from search.metrics import METRICS

    lowered_by = METRICS[metric].lowered_by
    return any(name in lowered_by or metric in catalogue.methods()[name].lowers for name in methods)
