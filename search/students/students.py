"""Students: the points within all limits that lose the least according to given curves.

For one limit that is a sum of tables (a latency, the size), the best student is exact: variable elimination gives the
front of loss and latency. The same holds for several limits if the best student of one of them meets the others. If
none does, the best of all fronts' students that meet every limit is taken, and compared with students that are stepped
down to the limits; it is near the best, and not always the best. So are students of a limit without tables, and of
tables too wide to be joined.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.elimination.front import front
from search.elimination.levels import restricted
from search.problem import Constraint, Problem
from search.stepping.curves import Curve
from search.stepping.lattice import Lattice, Point, distinct
from search.stepping.moves import Moves
from search.terms import Terms

Options = Collection[tuple[int, int]]
"""Pairs (knob, option) of unordered knobs."""


@dataclass(frozen=True, eq=False)
class Limit:
    """The largest value that the sum of tables may have."""

    terms: Terms
    bound: float


SHARES = (1.0, 0.98, 0.95, 0.92, 0.88, 0.84)
"""Budgets, as shares of a limit, for which the students are the best."""

_FREE_SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)  # the same as shares of the original's latency, if there is no limit
_STEPPED = 2  # students of each front that are stepped down until they meet every limit
_NOTE = "A student is near the best for its saliency, and not certainly the best, because {}."
_THINNED = "the front of loss and latency had too many points and was thinned"
_WIDE = "the tables of a limit are too wide to be joined"
_UNTABLED = "a limit is not a sum of tables"
_OTHERS = "the best student within one limit is above another"


class Students:
    """Students of one problem, by any curves.

    `gap` is the most by which thinned fronts can have missed the best. `notes` has a sentence for each reason why a
    student may not have been the best.
    """

    def __init__(self, problem: Problem, lattice: Lattice) -> None:
        self._problem = problem
        self._lattice = lattice
        limits = [c for c in problem.constraints if c.sense == "max" and c.metric in problem.terms]
        limits.sort(key=lambda c: -self._excess(c))  # the limit that asks for the most is the likeliest to decide
        self._limits = [Limit(problem.terms[c.metric], c.bound) for c in limits]
        self.gap = 0.0
        self._wide = False
        self._doubts: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each reason so far, in the order in which they arose."""
        return tuple(_NOTE.format(why) for why in self._doubts)

    def within(self, curves: Sequence[Curve], banned: Options = (), shares: Sequence[float] = SHARES) -> list[Point]:
        """Return students within all limits, the least loss first.

        Args:
            curves: the loss of each knob at each of its rungs.
            banned: options that no student has.
            shares: budgets, as shares of each limit, for which there are the best students.

        Raises: Infeasible if no point within the limits is found; it carries the nearest point found.
        """

        def loss(points: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.asarray(np.sum([curve[points[:, i]] for i, curve in enumerate(curves)], axis=0))

        found: list[Point] = []
        starts = [self._lattice.top]
        for limit in self._limits or self._none():
            students = self._front(limit, curves, banned, shares)
            found += students
            starts += students[:_STEPPED]
            if students and self._lattice.violation(students[0]) == 0.0:
                break  # the best student of one limit is the best of all if it meets the other limits
        else:
            found += self._stepped(starts, Moves(self._lattice, loss, banned))
            self._doubt_steps()
        points = np.stack(distinct(found))
        violations = self._lattice.violations(points)
        if violations.min() > 0.0:
            raise self._lattice.infeasible(points[int(np.argmin(violations))])
        points = points[violations == 0.0]
        return list(points[np.argsort(loss(points), kind="stable")])

    def _doubt_steps(self) -> None:
        """Note why students were stepped down to the limits."""
        if self._problem.constraints:
            untabled = len(self._limits) < len(self._problem.constraints)
            self._doubts[_WIDE if self._wide else _UNTABLED if untabled else _OTHERS] = None

    def _excess(self, limit: Constraint) -> float:
        """Return by how much the whole network exceeds a limit."""
        terms = self._problem.terms[limit.metric]
        return limit.violation({limit.metric: float(terms.latency_ms(self._levels(self._lattice.top)[None])[0])})

    def _none(self) -> list[Limit]:
        """Return, for a problem without limits, the original's latency as one, to have smaller students too."""
        if self._problem.constraints or not self._problem.terms:
            return []
        terms = next(iter(self._problem.terms.values()))
        return [Limit(terms, float(terms.latency_ms(self._levels(self._lattice.top)[None])[0]))]

    def _front(self, limit: Limit, curves: Sequence[Curve], banned: Options, shares: Sequence[float]) -> list[Point]:
        """Return the points of a limit's front, the least loss within the limit first.

        If none is within the limit, return the fastest point; none if the tables are too wide to be joined.
        """
        allowed = self._allowed(banned)
        also = [self._restricted(other.terms, allowed) for other in self._limits]
        terms = self._restricted(limit.terms, allowed)
        losses = {self._lattice.rungs[i].name: curves[i][rungs] for i, rungs in allowed.items()}
        budgets = np.array([limit.bound * share for share in (shares if self._limits else _FREE_SHARES)])
        found = front(terms, losses, budgets.tolist(), also) if allowed else None
        self._wide |= found is None and bool(allowed)
        if found is None:
            return []
        self.gap = max(self.gap, found.gap)
        if found.gap:
            self._doubts[_THINNED] = None
        # The sums of the front may differ from the latency by a rounding error.
        within = terms.latency_ms(found.levels)[:, None] <= budgets
        rows = np.where(within.any(axis=0), len(within) - 1 - np.argmax(within[::-1], axis=0), 0).tolist()
        if self._limits and len(shares) > 1:
            rows += range(rows[0], -1, -1)
        return self._points(found.levels[list(dict.fromkeys(rows))], allowed)

    def _points(self, levels: NDArray[np.int64], allowed: Mapping[int, NDArray[np.int64]]) -> list[Point]:
        points = np.repeat(self._lattice.top[None], len(levels), axis=0)
        for column, (i, rungs) in enumerate(allowed.items()):
            points[:, i] = rungs[levels[:, column]]
        return list(points)

    def _stepped(self, starts: Sequence[Point], moves: Moves) -> Iterator[Point]:
        """Yield points that are stepped down from these to within all limits.

        If that fails, the smallest network with one of the options may be the nearest to the limits.
        """
        for start in starts:
            reached, violation = moves.walk(start, 0.0)
            yield moves.give_back(reached) if violation == 0.0 else reached
        smallest = np.where([rungs.ordered for rungs in self._lattice.rungs], 0, self._lattice.top)
        for option in range(max(self._lattice.counts)):
            corner = smallest.copy()
            for i in self._lattice.unordered:
                corner[i] = min(option, self._lattice.counts[i] - 1)
            if moves.allows(corner):
                yield corner

    def _allowed(self, banned: Options) -> dict[int, NDArray[np.int64]]:
        """Return the allowed rungs of each levelled knob."""
        return {
            i: np.array([rung for rung in range(len(levels)) if (i, rung) not in banned], dtype=np.int64)
            for i, levels in self._lattice.level_tables
        }

    def _restricted(self, terms: Terms, allowed: Mapping[int, NDArray[np.int64]]) -> Terms:
        names = [rungs.name for rungs in self._lattice.rungs]
        return restricted(terms, {names[i]: table[allowed[i]] for i, table in self._lattice.level_tables})

    def _levels(self, point: Point) -> NDArray[np.int64]:
        return np.array([table[point[i]] for i, table in self._lattice.level_tables])
