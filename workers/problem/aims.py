"""Aims: what a job with several devices looks for: the best network for all devices together, and the best network for
each device alone.

A network for all devices must be within every limit. For a device alone, only its own limit on latency counts, and the
limits on other metrics; a fast device may then get a larger and better network than a slow one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from search.metrics import base_metric, device_of
from search.problem import Objective, Problem
from search.space import Space, Value

POINTS = 256
"""Number of points of each kind at which the limits of the devices are compared."""


def every_aim(problem: Problem) -> tuple[Problem, ...]:
    """Return the problem itself, then, if it limits the latency on several devices, the problem of each of them."""
    limited = dict.fromkeys(device_of(each.metric) for each in problem.constraints)
    devices = [device for device in limited if device is not None]
    if len(devices) < 2:
        return (problem,)
    return (problem, *(_alone(problem, device) for device in devices))


def searched_aims(problem: Problem) -> tuple[Problem, ...]:
    """Return the aims that need a search of their own.

    A device alone is left out if its limit allows nothing that the other limits forbid, at many points of the space:
    the best network for this device is then the best network for all of them.
    """
    whole, *alone = every_aim(problem)
    if not alone:
        return (whole,)
    points = _points(problem.space)
    over = problem.violations(points) > 0.0

    def allows_more(aim: Problem) -> bool:
        return aim.objective != problem.objective or bool((over & (aim.violations(points) == 0.0)).any())

    return (whole, *(aim for aim in alone if allows_more(aim)))


def _alone(problem: Problem, device: str) -> Problem:
    """Return the problem without the latencies of other devices."""

    def concerns(metric: str) -> bool:
        return device_of(metric) in (None, device)

    return replace(
        problem,
        objectives=tuple(_on(each, device) for each in problem.objectives),
        constraints=tuple(each for each in problem.constraints if concerns(each.metric)),
        terms={metric: terms for metric, terms in problem.terms.items() if concerns(metric)},
    )


def _on(objective: Objective, device: str) -> Objective:
    """Return the objective on this device, if it is a latency."""
    if device_of(objective.metric) is None:
        return objective
    return replace(objective, metric=f"{base_metric(objective.metric)}@{device}")


def _points(space: Space) -> list[Mapping[str, Value]]:
    """Return random points and, because the sums of independent draws are all alike, points with all knobs turned
    alike.
    """
    rng = np.random.default_rng(0)
    drawn: list[Mapping[str, Value]] = [space.sample(rng) for _ in range(POINTS)]
    for share in np.linspace(0.0, 1.0, POINTS):
        alike = {each.name: each.decode(np.array([share])) for each in space.knobs if each.ordered}
        drawn.append({**space.sample(rng), **alike})
    return drawn
