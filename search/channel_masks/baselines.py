"""Baselines of the choice: the most important units, greedy backward elimination, and pairwise swaps.

All are individuals of the genetic search, so that its result is never worse than theirs.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.channel_masks.fitness import Gram, Vector, marginal

Mask: TypeAlias = NDArray[np.bool_]
"""(c,), true for the removed units."""

Order: TypeAlias = NDArray[np.int64]
"""(c,) units, the first to be removed first."""

_TINY = 1e-12  # a gain below this share of the trace is a rounding error, which swaps could chase for ever


def least_important_first(importance: Vector) -> Order:
    """Return the units in the order in which they go: the least important first and, of equal scores, the last."""
    return np.argsort(-importance, kind="stable")[::-1]


def eliminated_first(gram: Gram) -> Order:
    """Return the units in the order of backward elimination: always the one whose removal costs the least goes next.

    ThiNet (Luo et al., arXiv 1707.06342) chooses greedily in this way.
    """
    costs, order = np.diag(gram).copy(), np.empty(len(gram), dtype=np.int64)
    for i in range(len(gram)):
        order[i] = int(np.argmin(costs))
        costs += 2.0 * gram[order[i]]
        costs[order[i]] = np.inf
    return order


def least_important(importance: Vector, keep: int) -> Mask:
    """Return the mask that keeps the `keep` units with the highest scores."""
    return _without(least_important_first(importance), keep)


def eliminated(gram: Gram, keep: int) -> Mask:
    """Return the mask of greedy backward elimination that keeps `keep` units."""
    return _without(eliminated_first(gram), keep)


def _without(order: Order, keep: int) -> Mask:
    gone = np.zeros(len(order), dtype=bool)
    gone[order[: len(order) - keep]] = True
    return gone


def swapped(gram: Gram, gone: Mask) -> Mask:
    """Return the mask after the best swap of a removed and a kept unit, repeated until no swap gains anything."""
    found = gone.copy()
    while found.any() and not found.all():
        kept, removed = np.flatnonzero(~found), np.flatnonzero(found)
        change = marginal(gram, found[None])[0]
        gains = change[removed][:, None] - change[kept][None] + 2.0 * gram[np.ix_(removed, kept)]
        back, out = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[back, out] <= _TINY * np.trace(gram):
            break
        found[removed[back]], found[kept[out]] = False, True
    return found
