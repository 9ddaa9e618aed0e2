"""Bisection of one sparsity: the baseline that `bayesian` must at least match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.problem import Problem
from search.space.settings import Bounds, Doc
from search.sparsity.samples import Bracket, Samples
from search.strategy import StrategyFamily


@dataclass(frozen=True)
class Settings:
    """Settings of the samples and the stopping rule."""

    recipe: Annotated[
        Literal["auto", "lc", "direct"],
        Doc("training of a sample: lc (learning-compression), direct (cut, fine-tune) or auto (lc for single weights)"),
    ] = "auto"
    samples: Annotated[int, Doc("maximum number of full training runs"), Bounds(1, 100)] = 10
    tolerance: Annotated[float, Doc("required precision of the sparsity"), Bounds(0.001, 0.5)] = 0.01


class Bisection:
    """Strategy that halves the interval between the highest sparsity that reached the level and the lowest that missed
    it.

    If there is no level, it asks for the least sparsity within the limits. The seed is not used.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._samples = Samples(problem, "bisection", seed, settings.recipe, settings.samples)

    def ask(self, count: int) -> list[Candidate]:
        fresh = self._samples.fresh(self._samples.allowed)
        if self._samples.closed or count < 1:
            return []
        index = self._least(fresh) if self._samples.level is None else self._middle(fresh, self._samples.level)
        return [] if index is None else [self._samples.candidate(index)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._samples.note(evaluations, pending)

    def _least(self, fresh: NDArray[np.int64]) -> int | None:
        found = any(sample.utility is not None for sample in self._samples.ended())
        return None if found or not len(fresh) else int(fresh[0])

    def _middle(self, fresh: NDArray[np.int64], level: float) -> int | None:
        bracket = Bracket.of(self._samples, level, margin=0.0, tolerance=self._settings.tolerance)
        return None if bracket.close else bracket.middle(self._samples, fresh)


STRATEGY = StrategyFamily(
    name="bisection",
    summary="Bisects one sparsity for the whole network until the limit on the score is bracketed.",
    source="baseline for Condensa (Joseph et al. 2019, arXiv 1911.02497)",
    settings=Settings,
    make=Bisection,
    baseline=True,
    trains=True,
    needs_sparsity=True,
)
