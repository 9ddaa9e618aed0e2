"""Uniform width (MobileNet's width multiplier, Howard et al. 2017): the same keep ratio for all width knobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.space.settings import Bounds, Doc
from search.stepping.lattice import Lattice, Point, distinct
from search.strategy import StrategyFamily

_MOST_COMBINATIONS = 64


@dataclass(frozen=True)
class Settings:
    """Settings for the candidates below the largest ratio."""

    neighbours: Annotated[int, Doc("number of smaller ratios to ask for, if there is room"), Bounds(0, 20)] = 2


class Uniform:
    """Strategy that proposes the largest ratio within the limits for each combination of the unordered knobs (fp32,
    int8).

    It estimates every ratio at which some width changes, in one batch. So the largest feasible ratio is exact even if
    latency does not rise steadily with the ratio, which would mislead a bisection. The seed is not used.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._lattice = Lattice(problem)
        self._settings = settings
        self._known = Knowledge(problem, "uniform", seed)

    def ask(self, count: int) -> list[Candidate]:
        best, neighbours = self._ranked
        asked = [point for point in best if self._known.fresh(self._lattice.values(point))]
        if count > 1 or self._all_failed(best):
            asked += [point for point in neighbours if self._known.fresh(self._lattice.values(point))]
        return [self._known.candidate(self._lattice.values(point)) for point in asked[:count]]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)

    def _all_failed(self, points: Sequence[Point]) -> bool:
        values = [self._lattice.values(point) for point in points]
        return all(self._known.resolved(v) and self._known.utility(v) is None for v in values)

    @cached_property
    def _ranked(self) -> tuple[list[Point], list[Point]]:
        """Return the points of the largest feasible ratio, one for each combination, widest first; and the points of
        smaller ratios.

        Raises: Infeasible if no ratio of any combination meets the limits.
        """
        ratios = self._ratios()
        ladders: list[tuple[float, list[Point]]] = []
        nearest: tuple[float, Point] | None = None
        for options in self._combinations():
            points = np.stack([self._at(ratio, options) for ratio in ratios])
            violations = self._lattice.violations(points)
            feasible = np.flatnonzero(violations == 0.0)
            least = int(np.argmin(violations))
            if nearest is None or violations[least] < nearest[0]:
                nearest = float(violations[least]), points[least]
            if len(feasible):
                ladders.append((float(ratios[feasible[0]]), distinct(points[feasible])))
        if not ladders:
            assert nearest is not None  # there is always at least one combination
            raise self._lattice.infeasible(nearest[1])
        ladders.sort(key=lambda item: -item[0])
        best = [points[0] for _, points in ladders]
        steps = range(1, self._settings.neighbours + 1)
        return best, [points[i] for i in steps for _, points in ladders if i < len(points)]

    def _ratios(self) -> NDArray[np.float64]:
        """Return every ratio at which some knob changes, largest first."""
        shares = [self._lattice.rungs[i].shares for i in self._lattice.ordered]
        return np.unique(np.concatenate([np.ones(1), *shares]))[::-1]

    def _at(self, ratio: float, options: Sequence[int]) -> Point:
        """Return the point with the largest widths that keep at most `ratio`, but no width smaller than its smallest
        level.
        """
        point = self._lattice.top.copy()
        for i in self._lattice.ordered:
            point[i] = max(int(np.searchsorted(self._lattice.rungs[i].shares, ratio, side="right")) - 1, 0)
        point[list(self._lattice.unordered)] = options
        return point

    def _combinations(self) -> list[tuple[int, ...]]:
        """Return all combinations of unordered options; if there are too many, only those that use the same option
        number.
        """
        counts = [self._lattice.counts[i] for i in self._lattice.unordered]
        if prod(counts) <= _MOST_COMBINATIONS:
            return list(product(*(range(count) for count in counts)))
        return [tuple(min(i, count - 1) for count in counts) for i in range(max(counts))]


STRATEGY = StrategyFamily(
    name="uniform",
    summary="Uses the same keep ratio for all widths: the largest ratio estimated to meet the limits.",
    source="Howard et al. 2017, MobileNets (arXiv 1704.04861)",
    settings=Settings,
    make=Uniform,
    baseline=True,
)
