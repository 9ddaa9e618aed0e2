"""Bounds: leave out the points of a set that can be part of no best choice for the wanted budgets.

This is Lagrangian relaxation. For a budget B, a price per millisecond and a choice known to lose at most `loss` within
B: a point is useless if its own loss and priced latency, and the least that all the rest can add to these, exceed
`loss` + price * B. The bound is valid for any price; the slope of the front at B is the price that leaves out the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.elimination.buckets import mini_buckets
from search.elimination.factor import Factor, minimised, total
from search.elimination.order import elimination_order
from search.elimination.points import Points

_ROUNDING = 1e-9
_LARGEST = 1 << 16  # entries of a joint table; larger ones are minimised apart, which only weakens the bound


@dataclass(frozen=True)
class Bound:
    """One wanted budget: the loss per millisecond there, and the least known loss plus the priced budget."""

    price: float
    most: float


def bounds_of(points: Points, budgets_ms: Sequence[float]) -> tuple[Bound, ...]:
    """Return the bounds of budgets, given a front of attained points; budgets that no point meets are left out."""
    latency_ms, loss = points.latency_ms[0], points.loss[0]
    corners = _hull(latency_ms, loss)
    found = []
    for budget_ms in budgets_ms:
        index = max(int(np.searchsorted(latency_ms, budget_ms, side="right")) - 1, 0)
        # A budget may be the very latency of the fastest point, which may be off by a rounding error.
        if latency_ms[index] <= budget_ms + _ROUNDING * (1.0 + abs(budget_ms)):
            price = _slope(latency_ms[corners], loss[corners], budget_ms)
            most = float(loss[index]) + price * budget_ms
            found.append(Bound(price, most + _ROUNDING * (1.0 + abs(most))))
    return tuple(dict.fromkeys(found))


def useful(
    points: Points, sets: Sequence[Points], tables: Sequence[Factor], sizes: Sequence[int], bounds: Sequence[Bound]
) -> Points:
    """Return the points that may be part of a best choice; `sets` and `tables` are all the rest of the problem."""
    scopes = [points.columns, *(s.columns for s in sets), *(t.columns for t in tables)]
    order = elimination_order(scopes, dict(enumerate(sizes)), kept=points.columns)
    wanted = np.zeros(points.loss.shape, dtype=bool)
    for bound in bounds:
        rest = [points.ground, *(s.priced(bound.price) for s in sets)]
        rest += [Factor(table.columns, bound.price * table.table) for table in tables]
        wanted |= points.price(bound.price) + _least(rest, order, sizes).reshape(-1, 1) <= bound.most
    return points.only(wanted)


def _least(factors: Sequence[Factor], order: Sequence[int], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return the least sum of the factors over the columns of the order, or less, as a table over the others."""
    live = list(factors)
    for column in order:
        groups = mini_buckets([f for f in live if column in f.columns], lambda f: f.columns, sizes, _LARGEST)
        live = [f for f in live if column not in f.columns] + [minimised(group, column) for group in groups]
    return total(live).table


def _hull(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int]:
    """Return the corners of the lower convex hull of points with rising x and falling y."""
    corners: list[int] = []
    for i in range(len(x)):
        while len(corners) > 1 and not _convex(x, y, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    return corners


def _convex(x: NDArray[np.float64], y: NDArray[np.float64], a: int, b: int, c: int) -> bool:
    return bool((y[b] - y[a]) * (x[c] - x[b]) < (y[c] - y[b]) * (x[b] - x[a]))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    """Return how much y falls per x between the two corners around `at`; 0 to the right of all corners."""
    right = int(np.searchsorted(x, at, side="right"))
    if right == len(x):
        return 0.0
    left = max(right - 1, 0)
    right = left + 1 if left == right else right
    return float((y[left] - y[right]) / (x[right] - x[left])) if right < len(x) else 0.0
