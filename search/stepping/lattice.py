"""Lattice: the rungs of a problem's knobs, for strategies that step up and down the knobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.errors import Infeasible, InvalidInput
from search.problem import Problem
from search.space import Choice, Float, Int, Knob, Subset, Value, Values

Point = NDArray[np.int64]
"""Rungs (d,), one per knob."""

_FINEST = 33  # number of rungs of a Float, and maximum for an Int: finer steps are lost in an evaluation's noise


@dataclass(frozen=True, eq=False)
class Rungs:
    """The values of one knob. Ordered values ascend, and the last one leaves the network whole; of unordered values,
    the first does.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool

    @property
    def top(self) -> int:
        return len(self.values) - 1 if self.ordered else 0

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """The share (rungs,) of the knob's largest value that each rung of an ordered knob keeps."""
        numbers = np.array(self.values, dtype=float)
        if numbers[0] < 0 or numbers[-1] <= 0:  # these values are not shares of a width: take the rung's position
            return np.arange(1, len(numbers) + 1) / len(numbers)
        return np.asarray(numbers / numbers[-1])


def _rungs(knob: Knob) -> Rungs:
    if isinstance(knob, Subset):
        raise InvalidInput(knob.name, knob, "this strategy chooses widths and cannot search a Subset knob")
    if isinstance(knob, Choice):
        return Rungs(knob.name, knob.options, knob.ordered)
    grid = np.linspace(knob.low, knob.high, _FINEST)
    if isinstance(knob, Float):
        return Rungs(knob.name, tuple(float(x) for x in grid), True)
    if knob.level_count <= _FINEST:
        return Rungs(knob.name, tuple(range(knob.low, knob.high + 1)), True)
    return Rungs(knob.name, tuple(int(x) for x in np.unique(grid.round())), True)


def distinct(points: Iterable[Point]) -> list[Point]:
    """Return the points in the same order, without repetitions."""
    found: dict[tuple[int, ...], Point] = {}
    for point in points:
        found.setdefault(tuple(point.tolist()), point)
    return list(found.values())


class Lattice:
    """The rungs of every knob of a problem, and the violations of points.

    Raises: InvalidInput for a Subset knob.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.rungs = tuple(_rungs(knob) for knob in problem.space.knobs)
        self.counts = tuple(len(rungs.values) for rungs in self.rungs)
        self.ordered = tuple(i for i, rungs in enumerate(self.rungs) if rungs.ordered)
        self.unordered = tuple(i for i, rungs in enumerate(self.rungs) if not rungs.ordered)
        self.top: Point = np.array([rungs.top for rungs in self.rungs], dtype=np.int64)
        self.level_tables = self._level_tables()

    def values(self, point: Point) -> dict[str, Value]:
        """Return the values of (d,) rungs."""
        return {r.name: r.values[i] for r, i in zip(self.rungs, point.tolist(), strict=True)}

    def point(self, values: Values) -> Point | None:
        """Return the rungs (d,) of values; None if a value (of a Float, or of a long Int) lies between two rungs."""
        found = []
        for rungs in self.rungs:
            if values[rungs.name] not in rungs.values:
                return None
            found.append(rungs.values.index(values[rungs.name]))
        return np.array(found, dtype=np.int64)

    def violations(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the summed relative violations (n,) at (n, d) rungs, from terms if the problem has them."""
        total = np.zeros(len(points))
        if not len(points):
            return total
        estimated: Mapping[str, NDArray[np.float64]] | None = None
        for constraint in self._problem.constraints:
            terms = self._problem.terms.get(constraint.metric)
            if terms is not None:
                column = terms.latency_ms(self._space_levels(points))
            else:
                if estimated is None:
                    estimated = self._problem.estimate([self.values(point) for point in points])
                column = np.asarray(estimated[constraint.metric], dtype=float)
            total += constraint.violations(column)
        return total

    def violation(self, point: Point) -> float:
        """Return the violation of one point, given as (d,) rungs."""
        return float(self.violations(point[None])[0])

    def infeasible(self, nearest: Point) -> Infeasible:
        """Return the exception that reports the nearest point."""
        values = self.values(nearest)
        metrics = {name: float(column[0]) for name, column in self._problem.estimate([values]).items()}
        return Infeasible(values, metrics, self.violation(nearest))

    def _level_tables(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Return for each levelled knob its position in the space and the space's level of each rung."""
        tables = []
        for i, (knob, rungs) in enumerate(zip(self._problem.space.knobs, self.rungs, strict=True)):
            if isinstance(knob, Int | Choice):
                tables.append((i, np.array([knob.level(value) for value in rungs.values], dtype=np.int64)))
        return tables

    def _space_levels(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([table[points[:, i]] for i, table in self.level_tables]).reshape(-1, len(points)).T
