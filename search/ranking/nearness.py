"""Nearness: if no network meets every limit, which one a user would take.

Every limit counts, and all in one measure: the logarithm of how many times over it a network is. Twice the latency and
twice the size are equally far, and two limits that are missed add up. For accuracy it is what a network knows beyond
guessing that counts: one that keeps half of that is as far off as one that takes twice the time, and one that only
guesses is infinitely far, however fast it is: it is nearest only among its like. So the uncut network, too slow as it
is, comes before a fast one that has forgotten everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from search.problem import Constraint, Problem

STANDARD_ERRORS = 2.0


def distance(
    constraints: Iterable[Constraint], metrics: Mapping[str, float], deciding: str, chance: float = 0.0
) -> float:
    """How far these metrics are from the constraints, 0 if they meet all of them.

    Args:
        deciding: the metric that says how good a network is at what it is for.
        chance: what guessing reaches in it.

    Raises:
        InvalidInput: a metric of a constraint is missing.
    """
    return math.fsum(_one(each, metrics, chance if each.metric == deciding else 0.0) for each in constraints)


def distance_of(problem: Problem, metrics: Mapping[str, float]) -> float:
    """The distance of a candidate of a search. Its accuracy, if it has one, is held against the level that limits
    leave, else against the original's: no limit allows it to be worthless.
    """
    deciding = problem.deciding
    wanted = problem.level if problem.level is not None else problem.original.get(deciding)
    known = () if wanted is None or deciding not in metrics else (Constraint(deciding, wanted, "min"),)
    return distance((*problem.constraints, *known), metrics, deciding, problem.chance)


def guesses(score: float, chance: float, count: int) -> bool:
    """Whether a mean score on `count` samples is within two standard errors of chance, or below it."""
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
