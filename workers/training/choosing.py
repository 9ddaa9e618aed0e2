"""Chooses the candidates of a search that are worth training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from search.evaluation import Status
from search.knowledge import values_key
from search.problem import Problem
from search.ranking.nearness import guesses
from search.ranking.preference import preference
from workers.problem.aims import every_aim
from workers.problem.estimated import estimated
from workers.progress import Evaluated


def chosen_finalists(evaluated: Sequence[Evaluated], problem: Problem, count: int) -> list[Evaluated]:
    """Return the best feasible candidates of the search by the problem's current estimates, without repeated values.

    If no candidate is feasible, return the candidate with the smallest violation among those that do better than
    guessing (accuracy is judged after training). Trained samples (F4) and untrained proxies (F2) cannot be compared, so
    the best candidates of the two kinds are taken in turn.
    """
    old = [e for e in evaluated if e.evaluation.status is Status.COMPLETED and e.evaluation.candidate.searched]
    renewed = estimated([each.evaluation for each in old], problem)
    searched = [
        replace(each, evaluation=newest, feasible=problem.feasible(newest.metrics))
        for each, newest in zip(old, renewed, strict=True)
    ]

    def rank(each: Evaluated) -> tuple[float | str, ...]:
        metrics = each.evaluation.metrics
        # A network that guesses before training is trained only if there is no other network.
        blind = not each.feasible and guesses(metrics.get(problem.deciding, 0.0), problem.chance, problem.images or 1)
        own = preference(problem.objective.utility(metrics), metrics, problem.deciding)
        return blind, problem.violation(metrics), *own, each.evaluation.candidate.id

    ordered = sorted(searched, key=rank)
    kinds: dict[str, list[Evaluated]] = {}
    for each in ordered:
        if each.feasible:
            kinds.setdefault(each.evaluation.candidate.fidelity, []).append(each)
    return in_turn([kinds[name] for name in sorted(kinds, reverse=True)])[:count] or ordered[:1]


def chosen_for_every_aim(evaluated: Sequence[Evaluated], problem: Problem, count: int) -> list[Evaluated]:
    """Return the best candidates for all devices together and for each device alone (`workers.problem.aims`), in turn.

    A candidate that serves several devices takes one place.
    """
    return in_turn([chosen_finalists(evaluated, aim, count) for aim in every_aim(problem)])[:count]


def in_turn(lists: Sequence[Sequence[Evaluated]]) -> list[Evaluated]:
    """Return the first of each list, then the second of each, and so on, without repeated values."""
    unique: dict[str, Evaluated] = {}
    for turn in zip_longest(*lists):
        for each in turn:
            if each is not None:
                unique.setdefault(values_key(each.evaluation.candidate.values), each)
    return list(unique.values())
