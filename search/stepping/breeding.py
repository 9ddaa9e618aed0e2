"""Breeding: a population of points within the limits, by uniform crossover, mutation, repair and elitism."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from search.stepping.lattice import Lattice
from search.stepping.moves import Loss
from search.stepping.repairs import Points, Repairs

_TOURNAMENT = 3
_FLIP = 0.1  # probability that a mutation turns an unordered knob to another option
_SHIFT = 0.15  # standard deviation of a mutation of an ordered knob, as a share of its rungs
_SPREAD = 0.5  # spread of a repair's prices, see `Repairs.within`


class Breeding:
    """Generations of points under predicted losses; `banned` holds (knob, option) pairs that no point may have."""

    def __init__(self, lattice: Lattice, loss: Loss, banned: Collection[tuple[int, int]], size: int) -> None:
        self._lattice = lattice
        self._loss = loss
        self._banned = banned
        self._size = size
        self._repairs = Repairs(lattice, loss)

    def bred(self, first: Points, generations: int, rng: np.random.Generator) -> Points:
        """Return all points met (n, d), distinct, without slack and within the limits, the least loss first."""
        met = self._ranked(self._repairs.within(first, rng, 0.0))
        for _ in range(generations):
            if not len(met):
                break
            met = self._ranked(np.concatenate([met, self._children(met[: self._size], rng)]))
        return met

    def _ranked(self, points: Points) -> Points:
        distinct = np.unique(points, axis=0)
        for knob, option in sorted(self._banned):
            distinct = distinct[distinct[:, knob] != option]
        return np.asarray(distinct[np.argsort(self._loss(distinct), kind="stable")])

    def _children(self, parents: Points, rng: np.random.Generator) -> Points:
        """Return repaired children. The parents are ranked, so the first of those drawn wins the tournament."""
        drawn = rng.integers(len(parents), size=(2, self._size, _TOURNAMENT)).min(axis=2)
        mothers, fathers = parents[drawn[0]], parents[drawn[1]]
        children = np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)
        return self._repairs.within(self._mutated(children, rng), rng, _SPREAD)

    def _mutated(self, children: Points, rng: np.random.Generator) -> Points:
        """Return the children with about one ordered knob shifted in each, and sometimes another option."""
        counts = np.array(self._lattice.counts)
        shifts = np.rint(rng.standard_normal(children.shape) * np.maximum(_SHIFT * counts, 1.0)).astype(np.int64)
        changed = rng.random(children.shape) < 1.0 / max(len(self._lattice.ordered), 1)
        found = np.where(changed, np.clip(children + shifts, 0, counts - 1), children)
        others = rng.integers(np.repeat(counts[None], len(children), axis=0))
        flipped = rng.random(children.shape) < _FLIP
        for knob in self._lattice.unordered:
            found[:, knob] = np.where(flipped[:, knob], others[:, knob], children[:, knob])
        return found


def tolerated(lattice: Lattice, loss: Loss, options: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the rates (d,) by sensitivity: every ordered knob at its lowest rung that alone loses at most the
    tolerated drop, and the drop the least with which the point is within the limits.

    Every drop at which some knob steps is tried, so the least is exact even if the latency is not monotone. None if no
    drop suffices.

    Args:
        options: (d,) rungs, of which only the unordered knobs' count.
    """
    top = lattice.top.copy()
    top[list(lattice.unordered)] = options[list(lattice.unordered)]
    curves = {i: _alone(lattice, loss, top, i) for i in lattice.ordered}
    drops = np.unique(np.concatenate([np.zeros(1), *curves.values()]))
    points = np.repeat(top[None], len(drops), axis=0)
    for i, curve in curves.items():
        points[:, i] = np.argmax(curve[None] <= drops[:, None], axis=1)
    within = np.flatnonzero(lattice.violations(points) <= 0.0)
    return np.asarray(points[within[0]]) if len(within) else None


def _alone(lattice: Lattice, loss: Loss, top: NDArray[np.int64], knob: int) -> NDArray[np.float64]:
    """Return the drop (rungs,) with only this knob at each rung, made to grow with the cut; 0 at its top."""
    points = np.repeat(top[None], lattice.counts[knob], axis=0)
    points[:, knob] = np.arange(lattice.counts[knob])
    drops = np.maximum(loss(points) - loss(top[None]), 0.0)
    return np.asarray(np.maximum.accumulate(drops[::-1])[::-1])
