"""Random search within the limits: draw points until one is estimated to meet the constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.sampling.draws import BATCH, BATCHES, drawn
from search.space.settings import Bounds, Doc
from search.strategy import StrategyFamily


@dataclass(frozen=True)
class Settings:
    """Settings of a draw."""

    batch: Annotated[int, Doc("number of points drawn and estimated at once"), Bounds(1, 4096)] = BATCH
    batches: Annotated[int, Doc("number of batches drawn per candidate before giving up"), Bounds(1, 1000)] = BATCHES


class Random:
    """Strategy whose candidate n is the first feasible unknown point of `default_rng([seed, n])`."""

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._seed = seed
        self._known = Knowledge(problem, "random", seed)

    def ask(self, count: int) -> list[Candidate]:
        asked: list[Candidate] = []
        while len(asked) < count:
            rng = np.random.default_rng([self._seed, self._known.asked])
            values = drawn(self._problem, rng, self._known.fresh, self._settings.batch, self._settings.batches)
            if values is None:
                break
            asked.append(self._known.candidate(values))
        return asked

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)


STRATEGY = StrategyFamily(
    name="random",
    summary="Random points within the limits; the baseline that other strategies must beat.",
    source="Bergstra and Bengio 2012, Random Search for Hyper-Parameter Optimization",
    settings=Settings,
    make=Random,
    baseline=True,
)
