"""Uncut: asks for the uncut network in every precision that is within the limits of the job or of one of its devices,
before any strategy asks.

Whatever a search finds must be better than changing nothing but the precision, so this is always among the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.space import Values
from workers.problem.aims import searched_aims

ORIGIN = "uncut"


class Uncut:
    """A strategy without settings. It asks for nothing if scores before training are not compared."""

    def __init__(self, problem: Problem) -> None:
        self._known = Knowledge(problem, ORIGIN, 0)
        points = list(_uncut(problem)) if problem.objective.metric == problem.deciding else []
        within = np.any([aim.violations(points) == 0.0 for aim in searched_aims(problem)], axis=0)
        self._wanted = [values for values, fits in zip(points, within, strict=True) if fits]

    def ask(self, count: int) -> list[Candidate]:
        fresh = [values for values in self._wanted if self._known.fresh(values)]
        return [self._known.candidate(values) for values in fresh[:count]]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)


def _uncut(problem: Problem) -> Iterator[Values]:
    """Yield the uncut network with each combination of the options of the whole network."""
    options = [knob for knob in problem.space.levelled if not knob.ordered and not knob.layers]
    for levels in product(*(range(knob.level_count) for knob in options)):
        chosen = {knob.name: knob.value(level) for knob, level in zip(options, levels, strict=True)}
        yield {**problem.space.whole, **chosen}
