"""Front: all the best compromises between a summed loss and a latency, for any number of budgets.

It is a knapsack with several choices per knob, solved by variable elimination: a message is not a least number but the
set of non-dominated pairs (loss, latency) for each assignment of the columns that remain. One pass gives the whole
front. It is exact until a set has more points than fit; then points are left out, and `gap` bounds what that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from search.elimination.bounds import Bound, bounds_of, useful
from search.elimination.factor import Factor, factors_of, total, union
from search.elimination.levels import kept_levels, restricted
from search.elimination.order import elimination_order
from search.elimination.points import Points
from search.errors import InvalidInput
from search.terms import Terms

MOST_POINTS = 4096
"""Number of points of one set; more are thinned."""

_ALL_POINTS = 1 << 20  # number of points of all sets of one message
_ROUGH = 64  # most points of a set of the rough front
_FEWEST = 32  # number of points below which a set says too little


@dataclass(frozen=True, eq=False)
class Front:
    """Points (n,) with rising latency and falling loss, and the levels (n, knobs) that attain them.

    For every choice of levels there is a point with at most its latency and at most its loss + `gap`; 0 is exact.
    """

    latency_ms: NDArray[np.float64]
    loss: NDArray[np.float64]
    levels: NDArray[np.int64]
    gap: float

    def at(self, budget_ms: float) -> int | None:
        """Return the index of the point with the least loss within this latency; None if there is none."""
        index = int(np.searchsorted(self.latency_ms, budget_ms, side="right")) - 1
        return None if index < 0 else index


def front(
    terms: Terms,
    losses: Mapping[str, NDArray[np.float64]],
    budgets_ms: Sequence[float] = (),
    also: Sequence[Terms] = (),
    most: int = MOST_POINTS,
) -> Front | None:
    """Return the front of `terms` and the sum of the losses; None if a joint table would be too large.

    `losses` has the loss (levels,) of each knob of the terms. If budgets are given, the front need only have the best
    points for these; a rough front first shows which points can be left out, so that the sets stay small. Levels that
    another level of their knob beats in every network are left out first, unless they may be of use for the latencies
    `also`.

    Raises: InvalidInput if a knob has no loss, or one of another length than its tables.
    """
    _check(terms, losses)
    allowed = kept_levels((terms, *also), losses)
    fewer, own = restricted(terms, allowed), [losses[name][allowed[name]] for name in terms.knobs]
    constant_ms = terms.offset_ms + terms.scale * terms.fixed_ms
    found = _eliminated(fewer, own, min(most, _ROUGH) if budgets_ms else most)
    if found is not None and found.gap[0] > 0.0:
        bounds = bounds_of(found, [budget_ms - constant_ms for budget_ms in budgets_ms])
        found = _eliminated(fewer, own, most, bounds) if bounds else found
    if found is None:
        return None
    places = np.stack([allowed[name][found.levels[0, :, i]] for i, name in enumerate(terms.knobs)], axis=1)
    return Front(constant_ms + found.latency_ms[0], found.loss[0], places, float(found.gap[0]))


def _eliminated(
    terms: Terms, losses: Sequence[NDArray[np.float64]], most: int, bounds: Sequence[Bound] = ()
) -> Points | None:
    sizes = [len(loss) for loss in losses]
    work = Work(tuple(sizes), factors_of(terms), [], most, bounds)
    work.sets += [Points.of_loss(column, loss, len(sizes)) for column, loss in enumerate(losses)]
    scopes = [*(points.columns for points in work.sets), *(table.columns for table in work.tables)]
    for column in elimination_order(scopes, dict(enumerate(sizes))):
        if not work.eliminate(column):
            return None
    return work.summed(work.sets)


@dataclass(eq=False)
class Work:
    """The sets and tables that are left in the course of an elimination."""

    sizes: tuple[int, ...]
    tables: list[Factor]
    sets: list[Points]
    most: int
    bounds: Sequence[Bound]

    def eliminate(self, column: int) -> bool:
        """Replace all sets and tables of a column by one set without it; return False if that would be too large."""
        tables = [table for table in self.tables if column in table.columns]
        sets = [points for points in self.sets if column in points.columns]
        columns = union([*(table.columns for table in tables), *(points.columns for points in sets)])
        cells = prod(self.sizes[column] for column in columns)
        if _ALL_POINTS // cells < min(self.most, _FEWEST):
            return False
        joint = self.summed(sets, _ALL_POINTS // cells)
        if tables:
            self.tables = [table for table in self.tables if column not in table.columns]
            joint = joint.delayed(total(tables), self.sizes)
        self._replace([], joint.without(column, min(self.most, _ALL_POINTS * self.sizes[column] // cells)))
        return True

    def summed(self, sets: Sequence[Points], room: int = MOST_POINTS) -> Points:
        """Take these sets out of `sets` and return their sum; sets over few columns are added first."""
        first, *others = sorted(sets, key=lambda points: (len(points.loss), points.columns))
        for other in others:
            first = self._replace([first, other], first.plus(other, self.sizes, min(self.most, room)))
        self.sets.remove(first)
        return first

    def _replace(self, old: Sequence[Points], new: Points) -> Points:
        """Put a set in place of others, without the points that the bounds leave out."""
        self.sets = [points for points in self.sets if points not in old]
        if self.bounds:
            new = useful(new, self.sets, self.tables, self.sizes, self.bounds)
        self.sets.append(new)
        return new


def _check(terms: Terms, losses: Mapping[str, NDArray[np.float64]]) -> None:
    if not terms.knobs:
        raise InvalidInput("terms.knobs", terms.knobs, "a front needs at least one knob")
    for name in terms.knobs:
        if name not in losses or not np.isfinite(losses[name]).all() or not len(losses[name]):
            raise InvalidInput("losses", name, "every knob needs a finite loss for each level")
    for term in terms.terms:
        for name, size in zip(term.knobs, term.table_ms.shape, strict=True):
            if len(losses[name]) != size:
                raise InvalidInput("losses", name, f"has {len(losses[name])} levels, and {size} in its tables")
