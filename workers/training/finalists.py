"""Finalists: the candidates of a search that are trained, or substitutes if no candidate is within the limits."""

from __future__ import annotations

from collections.abc import Sequence

from search.problem import Problem
from search.space import Values
from workers.problem.builder import ProblemBuilder
from workers.progress import Evaluated
from workers.running.context import Context
from workers.training.choosing import chosen_finalists
from workers.training.endpoints import nearest_corner, uncut_within


def finalists(
    context: Context,
    problem: Problem,
    builder: ProblemBuilder,
    smallest: Values,
    evaluated: Sequence[Evaluated],
    count: int,
) -> Sequence[Evaluated]:
    """Return the best candidates of the search; if no candidate is within the limits, return the uncut network (if its
    estimate is within them) and then the nearest candidates.
    """
    chosen = chosen_finalists(evaluated, problem, count)
    if any(each.feasible for each in chosen):
        return chosen
    uncut = uncut_within(problem, builder, [each.evaluation.candidate.values for each in evaluated])
    if chosen and uncut:
        text = "No evaluated candidate is within the limits, but the uncut network may be; it is trained first."
        context.say(text)
    if chosen:
        return [*uncut, *chosen][:count]
    ends = uncut[:count] or [nearest_corner(problem, builder, smallest)]
    names = ", ".join(each.evaluation.candidate.id for each in ends)
    context.warn(f"The search completed no evaluation; the {names} network is judged instead.")
    return ends
