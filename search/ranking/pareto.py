"""Pareto fronts, hypervolume, and the best and the nearest evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Goal, Problem
from search.ranking.nearness import distance_of
from search.ranking.preference import preference


def dominated(points: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.bool_]:
    """Return for each of (n, k) points whether another point dominates it, as an array (n,).

    A point dominates another point if it is at least as good in every column and better in one. Equal points do not
    dominate each other. O(n log n) for two columns, O(n^2) for more. Raises: InvalidInput if the number of goals
    differs from the number of columns.
    """
    costs = _costs(points, goals)
    return _dominated_2d(costs) if costs.shape[1] == 2 else _dominated_any(costs)


def front(points: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.int64]:
    """Return the ascending indices of the (n, k) points that are not dominated. Raises InvalidInput."""
    return np.flatnonzero(~dominated(points, goals)).astype(np.int64)


def hypervolume(points: NDArray[np.float64], goals: Sequence[Goal], reference: tuple[float, float]) -> float:
    """Return the area between (n, 2) points and a reference point that is worse than all points of interest.

    Points that are not better than the reference in both columns do not count. Raises InvalidInput.
    """
    costs, limit = _costs(points, goals), _costs(np.array([reference]), goals)[0]
    if costs.shape[1] != 2:
        raise InvalidInput("points", costs.shape, "hypervolume is for two columns")
    costs = costs[(costs < limit).all(axis=1)]
    area, ceiling = 0.0, float(limit[1])
    for x, y in costs[np.lexsort((costs[:, 1], costs[:, 0]))]:
        if y < ceiling:
            area += (float(limit[0]) - float(x)) * (ceiling - float(y))
            ceiling = float(y)
    return area


def best(evaluations: Iterable[Evaluation], problem: Problem) -> Evaluation | None:
    """Return the feasible evaluation that `search.ranking.preference` puts first; None if no evaluation is feasible."""
    feasible = [e for e in _judged(evaluations, problem) if problem.feasible(e.metrics)]
    return min(feasible, key=lambda e: (*_preference(e, problem), e.candidate.id), default=None)


def nearest(evaluations: Iterable[Evaluation], problem: Problem) -> Evaluation | None:
    """Return the evaluation nearest to the limits (see `nearness`) or, of several equally near ones, the best; None if
    there is none.
    """
    return min(
        _judged(evaluations, problem),
        key=lambda e: (distance_of(problem, e.metrics), *_preference(e, problem), e.candidate.id),
        default=None,
    )


def _judged(evaluations: Iterable[Evaluation], problem: Problem) -> list[Evaluation]:
    """Return the completed evaluations that have every metric of the problem's objectives and constraints."""
    wanted = {problem.objective.metric, *(constraint.metric for constraint in problem.constraints)}
    return [e for e in evaluations if e.status is Status.COMPLETED and wanted <= e.metrics.keys()]


def _preference(evaluation: Evaluation, problem: Problem) -> tuple[float, ...]:
    return preference(problem.objective.utility(evaluation.metrics), evaluation.metrics, problem.deciding)


def _costs(points: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.float64]:
    if points.ndim != 2 or points.shape[1] != len(goals):
        raise InvalidInput("points", points.shape, f"must have shape (n, {len(goals)}), one column per goal")
    if not np.isfinite(points).all():
        raise InvalidInput("points", "nan or inf", "every number must be finite")
    return np.asarray(points * np.array([1.0 if goal == "min" else -1.0 for goal in goals]))


def _dominated_2d(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Sweep by the first column: a point is dominated if an earlier point has a lower value in the second column."""
    order = np.lexsort((costs[:, 1], costs[:, 0]))
    x, y = costs[order, 0], costs[order, 1]
    found = np.zeros(len(costs), dtype=bool)
    if len(costs):
        starts = np.searchsorted(x, x, side="left")  # index of the first point with this x
        lowest = np.minimum.accumulate(y)
        before = np.where(starts > 0, lowest[np.maximum(starts - 1, 0)], np.inf)
        found[order] = (before <= y) | (y[starts] < y)
    return found


def _dominated_any(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    better = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    return np.asarray((no_worse & better).any(axis=0))
