"""Corners: the ends of a space, which are judged if a search found nothing within the limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.knowledge import values_key
from search.problem import Problem
from search.ranking.nearness import distance_of
from search.space import Values
from workers.problem.aims import every_aim
from workers.problem.builder import ProblemBuilder
from workers.progress import Evaluated
from workers.training.choosing import chosen_finalists

ORIGIN = "corner"
UNCHANGED = "unchanged"
REACH = 0.25
"""A relative violation that is larger than the error of any estimate so far; the estimates in
benchmarks/results/resnet20_rest.jsonl err by up to 13 %.
"""


def uncut_within(problem: Problem, builder: ProblemBuilder, known: Collection[Values]) -> list[Evaluated]:
    """Return the uncut network in each setting that is estimated to be within the limits, the best by the objective
    first.

    If the score is the objective, the unchanged network is first. `known` has the values that the search has evaluated;
    they are left out.
    """
    seen = {values_key(values) for values in known}
    points = {name: values for name, values in _uncut(builder).items() if values_key(values) not in seen}
    within = [each for violation, each in _judged(problem, points) if violation == 0.0]
    if problem.objective.metric != problem.deciding:
        within.sort(key=lambda each: -problem.objective.utility(each.evaluation.metrics))
    return within


def unchanged(problem: Problem, builder: ProblemBuilder) -> Evaluated:
    """Return the unchanged network with its estimated metrics."""
    return _judged(problem, {UNCHANGED: builder.whole})[0][1]


def out_of_reach(
    problem: Problem, builder: ProblemBuilder, smallest: Values, evaluated: Sequence[Evaluated]
) -> list[Evaluated]:
    """Return only the nearest network (`search.ranking.nearness`) if the limits cannot be met; else return no network.

    The limits cannot be met if neither an evaluated candidate nor an end of the space is estimated to be within REACH
    of them, on all devices or on one; any training would then be wasted. The uncut network is assumed to keep its score
    in every setting.
    """
    ends = {**_uncut(builder), "smallest": smallest}
    seen = [*(each.evaluation.candidate.values for each in evaluated), *ends.values()]
    if min(float(aim.violations(seen).min()) for aim in every_aim(problem)) <= REACH:
        return []
    corners = _judged(problem, ends)
    contenders = [*chosen_finalists(evaluated, problem, 1), *(each for _, each in corners[:-1])]
    return [min(contenders, key=lambda each: distance_of(problem, each.evaluation.metrics))]


def nearest_corner(problem: Problem, builder: ProblemBuilder, smallest: Values) -> Evaluated:
    """Return the uncut network or the smallest network, whichever is estimated to be nearer to the limits."""
    judged = _judged(problem, {**_uncut(builder), "smallest": smallest})
    return min(judged, key=lambda each: each[0])[1]


def _uncut(builder: ProblemBuilder) -> dict[str, Values]:
    points = ({**builder.whole, **setting} for setting in builder.settings)
    return {f"uncut-{i}" if i else UNCHANGED: values for i, values in enumerate(points)}


def _judged(problem: Problem, points: Mapping[str, Values]) -> list[tuple[float, Evaluated]]:
    """Return each point's relative violation of the limits, and its evaluation with estimated metrics."""
    if not points:
        return []
    estimates, over = problem.estimate(list(points.values())), problem.violations(list(points.values()))
    made = []
    for i, (name, values) in enumerate(points.items()):
        metrics = {metric: float(column[i]) for metric, column in estimates.items()}
        evaluation = Evaluation(Candidate(name, values, origin=ORIGIN), Status.COMPLETED, metrics)
        made.append((float(over[i]), Evaluated(ORIGIN, evaluation, problem.feasible(metrics))))
    return made
