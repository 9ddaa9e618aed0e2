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

_TINY = 1e-12  # a gain below this share of the trace is a rounding error, which swaps could chase for ever


def least_important(importance: Vector, keep: int) -> Mask:
    """Return the mask that keeps the `keep` units with the highest scores; of equal scores, the first are kept."""
    gone = np.ones(len(importance), dtype=bool)
    gone[np.argsort(-importance, kind="stable")[:keep]] = False
    return gone


def eliminated(gram: Gram, keep: int) -> Mask:
    """Return the mask of backward elimination: the kept unit whose removal costs the least goes, until `keep` are left.

    ThiNet (Luo et al., arXiv 1707.06342) chooses greedily in this way.
    """
    gone = np.zeros((1, len(gram)), dtype=bool)
    for _ in range(len(gram) - keep):
        gone[0, int(np.argmin(np.where(gone, np.inf, marginal(gram, gone))))] = True
    return np.asarray(gone[0])


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
