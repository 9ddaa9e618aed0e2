"""Finalists: the candidates of a search that are trained, or substitutes if no candidate is within the limits."""

from __future__ import annotations

from collections.abc import Sequence

from search.problem import Problem
from search.space import Values
from workers.problem.aims import every_aim
from workers.problem.builder import ProblemBuilder
from workers.progress import Evaluated
from workers.running.context import Context
from workers.training.choosing import chosen_finalists, in_turn
from workers.training.endpoints import ORIGIN, nearest_corner, uncut_within

UNCUT_FIRST = "No evaluated candidate is within the limits, but the uncut network may be; it is trained first."
UNCUT_TOO = (
    "For a device, no evaluated candidate is within the limits, but the uncut network may be; it is trained too."
)


def finalists(
    context: Context,
    problem: Problem,
    builder: ProblemBuilder,
    smallest: Values,
    evaluated: Sequence[Evaluated],
    count: int,
) -> Sequence[Evaluated]:
    """Return the best candidates of the search for all devices together and for each device alone, in turn; each is
    trained once, however many devices it serves.

    If no candidate is within the limits, the uncut network takes its place (if its estimate is within them), and then
    the nearest candidates.
    """
    aims = every_aim(problem)
    chosen = in_turn([_of_aim(aim, builder, evaluated, count) for aim in aims])
    ends = [each for each in chosen if each.strategy == ORIGIN]
    if len(ends) < len(chosen):
        if ends:
            context.say(UNCUT_FIRST if len(aims) == 1 else UNCUT_TOO)
        return chosen[:count]
    ends = ends[:count] or [nearest_corner(problem, builder, smallest)]
    names = ", ".join(each.evaluation.candidate.id for each in ends)
    context.warn(f"The search completed no evaluation; the {names} network is judged instead.")
    return ends


def _of_aim(aim: Problem, builder: ProblemBuilder, evaluated: Sequence[Evaluated], count: int) -> list[Evaluated]:
    """Return the best candidates within the limits of this aim; if there are none, the uncut network if it may be
    within them, and then the nearest candidates.
    """
    chosen = chosen_finalists(evaluated, aim, count)
    if any(each.feasible for each in chosen):
        return chosen
    return [*uncut_within(aim, builder, [each.evaluation.candidate.values for each in chosen]), *chosen]
