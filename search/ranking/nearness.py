"""Nearness: choose the network that a user would prefer when none meets every limit.

All limits use one measure, the logarithm of the factor by which a network exceeds the limit. Twice the allowed latency
and twice the allowed size are equally far off, and the distances from two missed limits add up. A score counts by its
margin over the score of guessing: half the required margin is as far off as twice the allowed latency, and a network
that only guesses is infinitely far off, however fast it is. So an uncut network that is too slow comes before a fast
network whose score is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from search.problem import Constraint, Problem

STANDARD_ERRORS = 2.0


def distance(
    constraints: Iterable[Constraint], metrics: Mapping[str, float], deciding: str, chance: float = 0.0
) -> float:
    """Return the distance of these metrics from the constraints, 0 if they meet all of them.

    Args:
        deciding: the metric that says how well a network does its task.
        chance: the value of the deciding metric that guessing reaches.

    Raises:
        InvalidInput: a metric of a constraint is missing.
    """
    return math.fsum(_one(each, metrics, chance if each.metric == deciding else 0.0) for each in constraints)


def distance_of(problem: Problem, metrics: Mapping[str, float]) -> float:
    """Return the distance of a search's candidate from the limits.

    A known score is compared with `level` or, without a level, with the original's score. So a network that only
    guesses is never near the limits.
    """
    deciding = problem.deciding
    wanted = problem.level if problem.level is not None else problem.original.get(deciding)
    known = () if wanted is None or deciding not in metrics else (Constraint(deciding, wanted, "min"),)
    return distance((*problem.constraints, *known), metrics, deciding, problem.chance)


def guesses(score: float, chance: float, count: int) -> bool:
    """Return whether a mean score on `count` samples is at most two standard errors above chance."""
    return score <= chance + STANDARD_ERRORS * math.sqrt(chance * (1.0 - chance) / count)


def _one(constraint: Constraint, metrics: Mapping[str, float], chance: float) -> float:
    violation = constraint.violation(metrics)
    if violation == 0.0:
        return 0.0
    guessed = chance if constraint.bound > chance else 0.0
    if constraint.sense == "max" or constraint.bound <= 0.0:
        return math.log1p(violation)
    kept = (metrics[constraint.metric] - guessed) / (constraint.bound - guessed)
    return -math.log(kept) if kept > 0.0 else math.inf
