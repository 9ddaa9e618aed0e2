"""Neighbours: slightly smaller networks than the nearest finalist, tried if latency alone is a little too high."""

from __future__ import annotations

from collections.abc import Sequence

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.problem import Problem
from workers.judging.judged import Judged, nearest_of
from workers.judging.smaller_neighbour import smaller_neighbour
from workers.progress import Evaluated
from workers.running.context import Context

NEIGHBOURS = 2
"""Neighbours that a job tries at most."""
A_LITTLE = 0.10
"""Relative excess over a limit on latency that a smaller neighbour may take off."""


def worth_another(verdicts: Sequence[Judged]) -> Judged | None:
    """The nearest, if latency alone keeps it from the limits, and by little."""
    nearest = nearest_of(verdicts)
    if nearest is None or nearest.met or not nearest.only_slow:
        return None
    return nearest if max(each.excess for each in nearest.timed) <= A_LITTLE else None


def lasts_for(context: Context, nearest: Judged) -> bool:
    """Whether the wall seconds last for another training like that of the nearest."""
    return context.spent_s + nearest.trained.elapsed_s < context.plan.budget.wall_s


def neighbour(context: Context, problem: Problem, verdicts: Sequence[Judged], attempt: int) -> list[Evaluated]:
    """One candidate, if a smaller one is worth a training; else none."""
    nearest = worth_another(verdicts)
    if nearest is None or not lasts_for(context, nearest):
        return []
    values = smaller_neighbour(problem, nearest.trained.values, nearest.timed)
    if values is None:
        return []
    context.say(f"{nearest.trained.name} is a little too slow: a smaller neighbour is trained.")
    metrics = {name: float(column[0]) for name, column in problem.estimate([values]).items()}
    origin = nearest.trained.candidate_id
    candidate = Candidate(f"neighbour-{attempt}", values, origin="neighbour", parents=(origin,))
    return [Evaluated(nearest.trained.strategy or "", Evaluation(candidate, Status.COMPLETED, metrics))]
