"""Sparsity inference (Condensa, Joseph et al. 2019, arXiv 1911.02497): one global sparsity by Bayesian optimisation.

The search takes at most ten full training runs (F4), in two stages:
1. level set: find the largest s whose score is at least the level, with DR-UCB: between the samples that reached the
   level and the samples that clearly did not, propose the s with the largest
   (1 - gamma) * sigma - gamma * |mean - level|;
2. optimise the objective on (0, s_acc]: by its estimate if there is one, else by GP-UCB on measured values.
Departures and additions (the paper's repository contains no search):
- "clearly" means by at least two standard deviations of the score, so that one unlucky sample does not end the search
  early;
- scores are squashed around the level (search.sparsity.curve);
- until the level is bracketed, the middle is proposed, as in bisection, because a Gaussian process would extrapolate;
  after that, proposals keep away from the ends of the bracket, as in Brent's method;
- limits on cost restrict the domain to sparsities that are estimated to meet them. If the score is the objective, there
  is no stage 1 under such limits: the least sparsity that meets the limits comes first, then GP-UCB looks for a better
  sparsity. The mean of its prior falls with s, because full training runs are too expensive to explore the far end;
- without a level, there is only stage 2, on all sparsities within the limits.
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

_CLEARLY = 2.0  # number of standard deviations below the level
_EDGE = 0.1  # share of the bracket, at each end, that proposals avoid
_COLLAPSE = 5.0  # squashed loss that stage 2 expects at the sparsest point
_BARRED = 1e3  # far larger than any acquisition, so that a point at an edge is proposed only if no other point is left


@dataclass(frozen=True)
class Settings:
    """Settings of the samples, their noise and the stopping rule."""

    recipe: Annotated[
        Literal["auto", "lc", "direct"],
        Doc("training of a sample: lc (learning-compression), direct (cut, fine-tune) or auto (lc for single weights)"),
    ] = "auto"
    samples: Annotated[int, Doc("maximum number of full training runs"), Bounds(1, 100)] = 10
    tolerance: Annotated[float, Doc("required precision of the sparsity"), Bounds(0.001, 0.5)] = 0.01
    noise: Annotated[
        float, Doc("standard deviation of a score, used if the number of images is not known"), Bounds(1e-5, 0.1)
    ] = 0.003
    gamma: Annotated[float, Doc("weight of nearness to the level; the rest goes to uncertainty"), Bounds(0.0, 1.0)] = (
        0.95
    )
    beta: Annotated[float, Doc("standard deviations added to the predicted objective"), Bounds(0, 10)] = 2.0


class Bayesian:
    """Strategy that asks for one sample at a time, because each sample should build on the results before it.

    The seed is not used.
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
        """Return the next sample; None once the bracket around the crossing is narrow enough."""
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
        """Return the next sample; None if no better sample can be expected."""
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
        """Return the next sample by GP-UCB; the first is the least sparsity, because more sparsity is expected to lose
        more.
        """
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
        """Return the posterior at the points `at`, given the measured number at other points and that of the uncut
        network.
        """
        x = [float(self._x[i]) for i, _ in known]
        y = [number for _, number in known]
        if uncut is not None:
            x, y = [0.0, *x], [uncut, *y]
        return fit(x, y, noise, reference, self._x[at], fall)

    def _noise(self, accuracy: float) -> float:
        """Return the standard error of a score measured on the problem's images."""
        images = self._problem.images
        if images is None:
            return self._settings.noise
        share = min(max(accuracy, 0.5 / images), 1.0 - 0.5 / images)
        return float(np.sqrt(share * (1.0 - share) / images))


def _reaches(sample: Sample, level: float) -> bool:
    return sample.accuracy is not None and sample.accuracy >= level


STRATEGY = StrategyFamily(
    name="bayesian",
    summary="Infers one sparsity for the whole network from at most ten full training runs.",
    source="Joseph et al. 2019, Condensa (arXiv 1911.02497)",
    settings=Settings,
    make=Bayesian,
    trains=True,
    needs_sparsity=True,
)
