"""Sparsity inference (Condensa, Joseph et al. 2019, arXiv 1911.02497): one global sparsity by Bayesian optimisation.

At most ten whole trainings (F4), in two stages:
1. level set: the largest s whose accuracy is at least the level, by DR-UCB: of the sparsities above every sample that
   reached the level and under every one that clearly did not, the one with the largest
   (1 - gamma) * sigma - gamma * |mean - level|;
2. the objective on (0, s_acc]: read off the estimate where that gives it, else by GP-UCB on what is measured.
Departures, the paper's repository having no search at all:
- "clearly" is two standard deviations of the accuracy: one unlucky sample must not end the search too early;
- accuracies are squashed around the level (search.sparsity.curve);
- until the level is bracketed the middle is taken, as by bisection: a process would extrapolate; after that a
  proposal keeps its distance from the ends of the bracket, as in Brent's method;
- limits on cost restrict the domain by estimate. With accuracy as the objective there is no stage 1 under such
  limits: the least sparsity that meets them comes first, then GP-UCB looks for a better one, under a prior whose mean
  falls: a whole training is too much for a look at the far end;
- without a level stage 2 alone is left, on all sparsities under the limits.
"""

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
from search.sparsity.curve import Curve, fit
from search.sparsity.samples import Bracket, Sample, Samples
from search.strategy import StrategyFamily

_CLEARLY = 2.0  # standard deviations under the level
_EDGE = 0.1  # of the bracket, at each end
_COLLAPSE = 5.0  # squashed: what stage 2 expects to be lost on the way to the sparsest
_BARRED = 1e3  # far more than any acquisition: at an edge only where nothing else is left


@dataclass(frozen=True)
class Settings:
    """What a sample is, how noisy it is, and when to stop."""

    recipe: Annotated[
        Literal["auto", "lc", "direct"],
        Doc("how a sample is trained: learning-compression, or cut first and fine-tuned; auto: lc for single weights"),
    ] = "auto"
    samples: Annotated[int, Doc("whole trainings at most"), Bounds(1, 100)] = 10
    tolerance: Annotated[float, Doc("how exactly the sparsity is wanted"), Bounds(0.001, 0.5)] = 0.01
    noise: Annotated[
        float, Doc("standard deviation of an accuracy, where the number of images does not tell"), Bounds(1e-5, 0.1)
    ] = 0.003
    gamma: Annotated[float, Doc("weight of being near the level against not being known yet"), Bounds(0.0, 1.0)] = 0.95
    beta: Annotated[float, Doc("standard deviations added to what the objective is predicted to be"), Bounds(0, 10)] = (
        2.0
    )


class Bayesian:
    """One sample at a time: each is worth more than what a second one beside it would learn.

    The seed plays no role.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._samples = Samples(problem, "bayesian", seed, settings.recipe, settings.samples)
        self._x = self._samples.sparsities.x

    def ask(self, count: int) -> list[Candidate]:
        fresh = self._samples.fresh(self._samples.allowed)
        if self._samples.closed or count < 1 or not len(fresh):
            return []
        level = self._samples.level
        index = None if level is None else self._crossing(fresh, level)
        if index is None:
            index = self._best(fresh, level)
        return [] if index is None else [self._samples.candidate(index)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._samples.note(evaluations, pending)

    # Stage 1: the level set.

    def _crossing(self, fresh: NDArray[np.int64], level: float) -> int | None:
        """The next sample; None once the crossing is bracketed."""
        noise = self._noise(level)
        bracket = Bracket.of(self._samples, level, _CLEARLY * noise, self._settings.tolerance)
        if bracket.close:
            return None
        if bracket.low < 0 or bracket.missed == len(self._x):
            return bracket.middle(self._samples, fresh)
        inside = fresh[(fresh > bracket.low) & (fresh < bracket.barred)]
        if not len(inside):
            return None
        known = [(s.index, s.accuracy) for s in self._samples.ended() if s.accuracy is not None]
        curve = self._curve(known, self._problem.original.get(self._problem.deciding), noise, level, inside)
        gamma = self._settings.gamma
        worth = (1.0 - gamma) * curve.sigma - gamma * np.abs(curve.mean)
        x, low, high = self._x[inside], self._x[bracket.low], self._x[min(bracket.barred, len(self._x) - 1)]
        edge = _EDGE * (high - low)
        worth[(x < low + edge) | (x > high - edge)] -= _BARRED
        return int(inside[np.argmax(worth)])

    # Stage 2: the objective.

    def _best(self, fresh: NDArray[np.int64], level: float | None) -> int | None:
        """The next sample; None where nothing better is to be had."""
        ended = self._samples.ended()
        reached = {s.index for s in ended if (s.utility is not None if level is None else _reaches(s, level))}
        if level is not None:
            fresh = fresh[fresh < max(reached, default=-1)]
        if not len(fresh):
            return None
        estimated = self._samples.estimated
        if estimated is None:
            return self._climb(fresh)
        best = int(fresh[np.argmax(estimated[fresh])])
        return best if all(estimated[best] > estimated[i] for i in reached) else None

    def _climb(self, fresh: NDArray[np.int64]) -> int | None:
        """GP-UCB, from the least sparsity on: what loses least is the first guess, more is expected to lose more."""
        known = [(s.index, s.utility) for s in self._samples.ended() if s.utility is not None]
        if not known:
            return int(fresh[0])
        objective, top = self._problem.objective, max(utility for _, utility in known)
        original = self._problem.original
        uncut = objective.utility(original) if objective.metric in original else None
        curve = self._curve(known, uncut, self._noise(abs(top)), top, fresh, _COLLAPSE)
        bound = curve.mean + self._settings.beta * curve.sigma
        return int(fresh[np.argmax(bound)]) if bound.max() > 0.0 else None

    def _curve(
        self,
        known: Sequence[tuple[int, float]],
        uncut: float | None,
        noise: float,
        reference: float,
        at: NDArray[np.int64],
        fall: float = 0.0,
    ) -> Curve:
        """What is measured at these points, given (point, number) pairs and that of the uncut network."""
        x = [float(self._x[i]) for i, _ in known]
        y = [number for _, number in known]
        if uncut is not None:
            x, y = [0.0, *x], [uncut, *y]
        return fit(x, y, noise, reference, self._x[at], fall)

    def _noise(self, accuracy: float) -> float:
        """The standard error of an accuracy counted on so many images."""
        images = self._problem.images
        if images is None:
            return self._settings.noise
        share = min(max(accuracy, 0.5 / images), 1.0 - 0.5 / images)
        return float(np.sqrt(share * (1.0 - share) / images))


def _reaches(sample: Sample, level: float) -> bool:
    return sample.accuracy is not None and sample.accuracy >= level


STRATEGY = StrategyFamily(
    name="bayesian",
    summary="Infers one sparsity for the whole network from at most ten whole trainings.",
    source="Joseph et al. 2019, Condensa (arXiv 1911.02497)",
    settings=Settings,
    make=Bayesian,
    trains=True,
    needs_sparsity=True,
)
