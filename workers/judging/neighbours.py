"""Neighbours: slightly smaller networks than the nearest finalist, tried if only its latency is a little too high."""

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
"""Maximum number of neighbours that a job tries."""
A_LITTLE = 0.10
"""Largest relative excess over a latency limit for which a smaller neighbour is tried."""


def worth_another(verdicts: Sequence[Judged]) -> Judged | None:
    """Return the nearest finalist if it misses only latency limits, by at most A_LITTLE."""
    nearest = nearest_of(verdicts)
    if nearest is None or nearest.met or not nearest.only_slow:
        return None
    return nearest if max(each.excess for each in nearest.timed) <= A_LITTLE else None


def lasts_for(context: Context, nearest: Judged) -> bool:
    """Return True if the remaining wall seconds are enough for a training run as long as the nearest finalist's."""
    return context.spent_s + nearest.trained.elapsed_s < context.plan.budget.wall_s


def neighbour(context: Context, problem: Problem, verdicts: Sequence[Judged], attempt: int) -> list[Evaluated]:
    """Return a list with the candidate of a smaller neighbour, or an empty list if no neighbour is worth training."""
    nearest = worth_another(verdicts)
    if nearest is None or not lasts_for(context, nearest):
        return []
    values = smaller_neighbour(problem, nearest.trained.values, nearest.timed)
    if values is None:
        return []
    context.say(f"{nearest.trained.name} is a little too slow; training a smaller neighbour.")
    metrics = {name: float(column[0]) for name, column in problem.estimate([values]).items()}
    origin = nearest.trained.candidate_id
    candidate = Candidate(f"neighbour-{attempt}", values, origin="neighbour", parents=(origin,))
    return [Evaluated(nearest.trained.strategy or "", Evaluation(candidate, Status.COMPLETED, metrics))]
