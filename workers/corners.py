"""Corners: the ends of a space, to be judged where a search found nothing within the limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.knowledge import values_key
from search.problem import ACCURACY, Problem
from search.space import Values
from workers.problem import ProblemBuilder
from workers.progress import Evaluated

ORIGIN = "corner"


def uncut_within(problem: Problem, builder: ProblemBuilder, known: Collection[Values]) -> list[Evaluated]:
    """The uncut network in every setting that is within the limits by estimate: the best by the objective first, by
    accuracy the one as it is. `known`: values that the search has evaluated, which are left out.
    """
    seen = {values_key(values) for values in known}
    points = {name: values for name, values in _uncut(builder).items() if values_key(values) not in seen}
    within = [each for violation, each in _judged(problem, points) if violation == 0.0]
    if problem.objective.metric != ACCURACY:
        within.sort(key=lambda each: -problem.objective.utility(each.evaluation.metrics))
    return within


def nearest_corner(problem: Problem, builder: ProblemBuilder, smallest: Values) -> Evaluated:
    """The uncut network or the smallest, whichever is nearer to the limits by estimate."""
    judged = _judged(problem, {**_uncut(builder), "smallest": smallest})
    return min(judged, key=lambda each: each[0])[1]


def _uncut(builder: ProblemBuilder) -> dict[str, Values]:
    points = ({**builder.whole, **setting} for setting in builder.settings)
    return {f"uncut-{i}" if i else "unchanged": values for i, values in enumerate(points)}


def _judged(problem: Problem, points: Mapping[str, Values]) -> list[tuple[float, Evaluated]]:
    """How far over the limits each is, and what would be trained."""
    if not points:
        return []
    estimates, over = problem.estimate(list(points.values())), problem.violations(list(points.values()))
    made = []
    for i, (name, values) in enumerate(points.items()):
        metrics = {metric: float(column[i]) for metric, column in estimates.items()}
        evaluation = Evaluation(Candidate(name, values, origin=ORIGIN), Status.COMPLETED, metrics)
        made.append((float(over[i]), Evaluated(ORIGIN, evaluation, problem.feasible(metrics))))
    return made
