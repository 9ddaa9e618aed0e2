"""Samples: full training runs at values of one sparsity, their results, and the points left for the next run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import NAN, Evaluation, Status
from search.knowledge import Knowledge
from search.problem import Problem
from search.sparsity.sparsities import Sparsities, densities


@dataclass(frozen=True)
class Sample:
    """A full training run at the point number `index` of the sparsities.

    `accuracy` is the score of the trained network. It and `utility` are None if the run gave no result. `lost` is True
    if a result is missing because of the machine and not because of the sparsity, e.g. after a killed worker or a
    time-out.
    """

    index: int
    accuracy: float | None
    utility: float | None
    network: str | None
    lost: bool = False


class Samples:
    """Candidates of fidelity F4 with one recipe. They run one at a time, each from the nearest finished candidate.

    A sample that diverged counts as infeasible: if training diverges at s, it will also diverge at a higher s.
    """

    def __init__(self, problem: Problem, origin: str, seed: int, recipe: str, limit: int) -> None:
        self.problem = problem
        self.sparsities = Sparsities.of(problem)
        # For filters, `direct` is chosen: L-C did worse with a few seeds of benchmarks/lc_against_direct.py.
        if recipe == "auto":
            recipe = "lc" if densities(problem) else "direct"
        self._known = Knowledge(problem, origin, seed, fidelity="F4", recipe=recipe)
        self._limit = limit

    @property
    def level(self) -> float | None:
        """The score at which the search must find the crossing; None if there is no such score or it does not matter.

        It does not matter if the score is the objective and cost is limited, because the *least* sparsity within the
        limits is best then.
        """
        aimed = self.problem.objective.metric == self.problem.deciding and bool(self.problem.constraints)
        return None if aimed else self.problem.level

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Record the arguments of `Strategy.tell`."""
        self._known.note(evaluations, pending)

    @property
    def closed(self) -> bool:
        """True if no sample may be asked for now, because one is running or the maximum number is reached."""
        running = any(self.sparsities.index(values) is not None for values in self._known.running())
        return running or self._known.asked >= self._limit

    @cached_property
    def allowed(self) -> NDArray[np.int64]:
        """Ascending indices of the points that are estimated to meet the constraints.

        Raises: Infeasible if there is no such point.
        """
        violations = self.problem.violations(self.sparsities.values)
        found = np.flatnonzero(violations == 0.0)
        if not len(found):
            raise self._infeasible(int(np.argmin(violations)), float(violations.min()))
        return found.astype(np.int64)

    def _infeasible(self, index: int, violation: float) -> Infeasible:
        values = self.sparsities.values[index]
        estimate = self.problem.estimate([values])
        return Infeasible(values, {name: float(column[0]) for name, column in estimate.items()}, violation)

    @cached_property
    def estimated(self) -> NDArray[np.float64] | None:
        """Estimated objective (n,) of every point; more is better. None if the objective cannot be estimated."""
        objective = self.problem.objective
        column = self.problem.estimate(self.sparsities.values).get(objective.metric)
        if column is None:
            return None
        return np.asarray(column if objective.goal == "max" else -np.asarray(column), dtype=float)

    def ended(self) -> list[Sample]:
        """Return every sample that has ended, by ascending sparsity."""
        found = []
        for evaluation in self._known.evaluations():
            index = self.sparsities.index(evaluation.candidate.values)
            if index is not None:
                done = evaluation.status is Status.COMPLETED
                accuracy = evaluation.metrics.get(self.problem.deciding) if done else None
                utility = self._known.utility(evaluation.candidate.values)
                network = evaluation.network if done else None
                found.append(Sample(index, accuracy, utility, network, not done and evaluation.reason != NAN))
        return sorted(found, key=lambda sample: sample.index)

    def fresh(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the points that have no sample yet."""
        known = {sample.index for sample in self.ended()}
        return np.array([i for i in indices.tolist() if i not in known], dtype=np.int64)

    def candidate(self, index: int) -> Candidate:
        """Return a candidate at this point. It starts from the nearest finished sample of lower sparsity, which has
        lost less.
        """
        below = [sample for sample in self.ended() if sample.index < index and sample.network]
        values = self.sparsities.values
        if not below:
            return self._known.candidate(values[index])
        nearest = below[-1]
        return self._known.candidate(values[index], self._known.parents(values[nearest.index]), nearest.network)


@dataclass(frozen=True)
class Bracket:
    """The points between which the score crosses the level.

    `low` is the sparsest sample that reached the level, or -1. `missed` is the first sample above `low` that did not
    reach the level, and `barred` the first sample above `low` that missed the level by more than `margin`; each of the
    two is n if there is no such sample. `close` is True if `low` and `missed` are nearer than `tolerance`.
    """

    low: int
    missed: int
    barred: int
    close: bool

    @classmethod
    def of(cls, samples: Samples, level: float, margin: float, tolerance: float) -> Bracket:
        told = [sample for sample in samples.ended() if not sample.lost]
        judged = [(s.index, -math.inf if s.accuracy is None else s.accuracy) for s in told]
        low = max((index for index, accuracy in judged if accuracy >= level), default=-1)
        above = [(index, accuracy) for index, accuracy in judged if index > low]
        end = len(samples.sparsities)
        missed = min((index for index, _ in above), default=end)
        barred = min((index for index, accuracy in above if accuracy < level - margin), default=end)
        close = low >= 0 and missed < end and _gap(samples.sparsities, low, missed) < tolerance
        return cls(low, missed, barred, close)

    def middle(self, samples: Samples, fresh: NDArray[np.int64]) -> int | None:
        """Return the fresh point nearest to the middle between `low` and `missed`; None if no such point is left."""
        x = samples.sparsities.x
        inside = fresh[(fresh > self.low) & (fresh < self.missed)]
        if not len(inside):
            return None
        half = (x[max(self.low, 0)] + x[min(self.missed, len(x) - 1)]) / 2
        return int(inside[np.argmin(np.abs(x[inside] - half))])


def _gap(sparsities: Sparsities, low: int, high: int) -> float:
    """Return the distance between two points, in s or as a share of the coordinate, whichever is larger."""
    x, s = sparsities.x, sparsities.s
    return float(max(s[high] - s[low], x[high] - x[low]))
